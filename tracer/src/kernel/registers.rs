//! Where a probed function's arguments and result are: `struct pt_regs`, which a kprobe's program is given, begins with
//! what ptrace(2) shows of it.

use std::mem::offset_of;

use libc::user_regs_struct;

/// Offsets of the first and third argument and of what was returned, in bytes.
pub struct Registers {
    pub first: u32,
    pub third: u32,
    pub returned: u32,
}

#[cfg(target_arch = "x86_64")]
pub const REGISTERS: Registers = Registers {
    first: offset_of!(user_regs_struct, rdi) as u32,
    third: offset_of!(user_regs_struct, rdx) as u32,
    returned: offset_of!(user_regs_struct, rax) as u32,
};

/// `x0`, `x2` and `x0`.
#[cfg(target_arch = "aarch64")]
pub const REGISTERS: Registers = {
    let general = offset_of!(user_regs_struct, regs) as u32;
    Registers { first: general, third: general + 2 * 8, returned: general }
};

#[cfg(test)]
mod tests {
    use super::REGISTERS;
    use crate::kernel::types::Types;

    #[cfg(target_arch = "x86_64")]
    const KERNEL_NAMES: [(&str, u32); 3] =
        [("di", REGISTERS.first), ("dx", REGISTERS.third), ("ax", REGISTERS.returned)];
    #[cfg(target_arch = "aarch64")]
    const KERNEL_NAMES: [(&str, u32); 1] = [("regs", REGISTERS.first)];

    #[test]
    fn the_running_kernel_has_them_there() {
        let types = Types::of_running_kernel().unwrap();
        for (name, offset) in KERNEL_NAMES {
            assert_eq!(types.member("pt_regs", name).unwrap().offset_bytes, offset, "{name}");
        }
    }
}
