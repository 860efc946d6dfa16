//! Just enough of x86-64 assembly (Intel's operand order) to follow one function's straight way.

use anyhow::{Context, Result, bail};

/// The instructions of `symbol` from its entry to its first `ret`: conditional jumps are not
/// taken, plain jumps inside the function are followed.
pub(super) fn fall_through(text: &str, symbol: &str) -> Result<Vec<String>> {
    let lines: Vec<&str> = text.lines().map(clean).collect();
    let label = |name: &str| {
        lines.iter().position(|line| line.strip_suffix(':').is_some_and(|label| label == name))
    };
    let mut at = label(symbol).with_context(|| format!("no symbol {symbol}"))? + 1;
    let mut path: Vec<String> = Vec::new();
    loop {
        let line = *lines.get(at).context("the function has no end")?;
        at += 1;
        if line.starts_with(".size") || line.starts_with(".cfi_endproc") {
            bail!("the straight way leaves the function without `ret`");
        }
        if line.is_empty() || line.ends_with(':') || line.starts_with('.') || line.starts_with('#')
        {
            continue;
        }
        path.push(line.split_whitespace().collect::<Vec<_>>().join(" "));
        if path.len() > 1000 {
            bail!("the straight way goes round in a circle");
        }
        let (mnemonic, operands) = split(line);
        if mnemonic.starts_with("ret") {
            return Ok(path);
        }
        if mnemonic == "jmp" {
            match label(operands).filter(|_| operands.starts_with(".L")) {
                Some(target) => at = target + 1,
                // A tail call, or a table: the way ends here and the instruction is objected to.
                None => return Ok(path),
            }
        }
    }
}

/// What an instruction does that a map on an open machine may not, if it does.
pub(super) fn objection(instruction: &str) -> Option<String> {
    let (mnemonic, operands) = split(instruction);
    let memory = operands.contains('[');
    let first = operands.split(',').next().unwrap_or_default();
    let why = match mnemonic {
        "call" => "a call",
        "jmp" if !operands.starts_with(".L") => "a call in place of a return",
        "lock" | "mfence" | "lfence" | "sfence" => "an atomic operation or a fence",
        "xchg" if memory => "an atomic operation (`xchg` with memory locks by itself)",
        "push" => "a store (to the stack)",
        "rep" | "stosb" | "stosd" | "stosq" | "movsb" | "movsq" => "a store (of a string)",
        // These only read what their first operand names.
        "cmp" | "test" | "bt" | "jmp" | "nop" | "mul" | "div" | "prefetcht0" => return None,
        "ud2" | "int3" | "syscall" => "a trap",
        _ if first.contains('[') => "a store to memory",
        _ => return None,
    };
    Some(format!("`{instruction}` is {why}"))
}

fn split(instruction: &str) -> (&str, &str) {
    let (mnemonic, operands) =
        instruction.split_once(char::is_whitespace).unwrap_or((instruction, ""));
    (mnemonic, operands.trim())
}

fn clean(line: &str) -> &str {
    line.split('#').next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "
	.globl	coco_dma_open_map
	.type	coco_dma_open_map,@function
coco_dma_open_map:
	.cfi_startproc
	cmp	byte ptr [rdi + 8], 0   # the regime
	jne	.LBB0_3
	lea	rax, [rsi + rdx - 1]
	cmp	rax, qword ptr [rdi]
	ja	.LBB0_4
	jmp	.LBB0_2
.LBB0_4:
	mov	rax, -1
	ret
.LBB0_2:
	mov	rax, rsi
	ret
.LBB0_3:
	push	rax
	call	slow
	pop	rcx
	ret
.Lfunc_end0:
	.size	coco_dma_open_map, .Lfunc_end0-coco_dma_open_map
	.cfi_endproc
";

    fn body(lines: &str) -> Result<Vec<String>> {
        fall_through(&format!("f:\n{lines}\n.size f, 1\n"), "f")
    }

    fn objections(lines: &str) -> usize {
        body(lines).unwrap().iter().filter_map(|line| objection(line)).count()
    }

    #[test]
    fn the_straight_way_is_followed_and_the_slow_way_is_not() {
        let path = fall_through(GOOD, "coco_dma_open_map").unwrap();
        assert_eq!(path.len(), 8, "{path:?}");
        assert_eq!(path.last().unwrap(), "ret");
        assert_eq!(path.iter().filter_map(|line| objection(line)).count(), 0);
    }

    #[test]
    fn a_missing_or_endless_function_is_an_error() {
        assert!(fall_through(GOOD, "coco_dma_open").is_err());
        assert!(body("mov rax, rsi").is_err());
        assert!(body(".L1:\nnop\njmp .L1").is_err());
    }

    #[test]
    fn what_costs_is_seen() {
        assert_eq!(objections("mov rax, qword ptr [rdi]\nadd rax, rsi\nret"), 0);
        assert_eq!(objections("mov qword ptr [rdi], rax\nret"), 1);
        assert_eq!(objections("add\tqword ptr [rdi], 1\nret"), 1);
        assert_eq!(objections("lock\tinc dword ptr [rdi]\nret"), 1);
        assert_eq!(objections("lock cmpxchg qword ptr [rdi], rcx\nret"), 1);
        assert_eq!(objections("xchg rax, qword ptr [rdi]\nret"), 1);
        assert_eq!(objections("xchg rax, rcx\nret"), 0);
        assert_eq!(objections("push rbx\ncall g\npop rbx\nret"), 2);
        assert_eq!(objections("call qword ptr [rip + g@GOTPCREL]\nret"), 1);
        assert_eq!(objections("jmp g"), 1);
        assert_eq!(objections("jmp rax"), 1);
        assert_eq!(objections("sete byte ptr [rdi]\nret"), 1);
        assert_eq!(objections("movups xmmword ptr [rdi], xmm0\nret"), 1);
        assert_eq!(objections("rep movsb\nret"), 1);
        assert_eq!(objections("mfence\nret"), 1);
    }
}
