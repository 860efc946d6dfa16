//! From QEMU's PVH entry (32 bit, paging off) to Rust in 64 bit, on tables that map the first
//! 4 GiB to themselves. `memory::paging` builds the real ones.
// UNSAFETY: the first instructions of a kernel are assembler, and its names are fixed.
#![expect(unsafe_code)]

use core::arch::global_asm;

global_asm!(
    r#"
    .section .note.pvh, "a", @note
    .balign 4
    .long 4, 4, 18                  /* XEN_ELFNOTE_PHYS32_ENTRY */
    .asciz "Xen"
    .long pvh_start

    .section .text.pvh, "ax"
    .code32
    .globl pvh_start
pvh_start:
    cld
    mov $stack_top, %esp
    mov %ebx, %edi                  /* the start info: the first argument of `begin` */
    /* one table of 4 GiB in pages of 1 GiB */
    movl $early_pdpt + 3, early_pml4
    movl $0x83, early_pdpt
    movl $0x40000083, early_pdpt + 8
    movl $0x80000083, early_pdpt + 16
    movl $0xc0000083, early_pdpt + 24
    mov $early_pml4, %eax
    mov %eax, %cr3
    mov %cr4, %eax
    or $0x620, %eax                 /* PAE, OSFXSR, OSXMMEXCPT */
    mov %eax, %cr4
    mov $0xc0000080, %ecx           /* EFER: LME, NXE */
    rdmsr
    or $0x900, %eax
    wrmsr
    mov %cr0, %eax
    and $0xfffffffb, %eax           /* not EM */
    or $0x80010003, %eax            /* PG, WP, MP, PE */
    mov %eax, %cr0
    lgdt gdt_pointer
    ljmp $8, $long_mode
    .code64
long_mode:
    xor %eax, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov %eax, %fs
    mov %eax, %gs
    mov %edi, %edi
    xor %ebp, %ebp
    call {begin}
    ud2

    .section .rodata.pvh, "a"
    .balign 8
gdt:
    .quad 0, 0x00209b0000000000, 0x0000930000000000
gdt_pointer:
    .word 23
    .long gdt

    .section .bss.pvh, "aw", @nobits
    .balign 4096
early_pml4: .skip 4096
early_pdpt: .skip 4096
    .globl stack_bottom
stack_bottom:
    .skip 262144
stack_top:
    .text
"#,
    begin = sym begin,
    options(att_syntax)
);

/// The first Rust.
extern "C" fn begin(start_info: u64) -> ! {
    super::traps::install();
    // SAFETY: QEMU gave this address, and nothing has been written since.
    let boot = unsafe { super::start::Boot::read(start_info) };
    crate::main(&boot)
}
