//! A userspace machine whose shared memory is given to a real device process over vhost-user.
