//! Every chore of the project. The binary is `cargo xtask`; `tracer`'s build script uses the library to get
//! the kernel object.

pub mod apt;
pub mod cmd;
pub mod object;
pub mod packages;
pub mod toolchain;
