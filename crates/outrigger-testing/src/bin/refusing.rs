//! Runs a program under a filter that refuses system calls, as an older kernel
//! or a container would: `refusing CALL|all ENOSYS|EPERM PROGRAM [ARGUMENT…]`.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use outrigger_testing::refuse;

#[allow(clippy::disallowed_methods, clippy::print_stderr)] // A tool of tests.
fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let mut text = || arguments.next().and_then(|text| text.into_string().ok());
    let (Some(call), Some(answer)) = (text(), text()) else {
        eprintln!("usage: refusing CALL|all ENOSYS|EPERM PROGRAM [ARGUMENT…]");
        return ExitCode::FAILURE;
    };
    let Some(program) = arguments.next() else {
        eprintln!("no program");
        return ExitCode::FAILURE;
    };
    if let Err(error) = refuse(&call, &answer) {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    eprintln!("{}", Command::new(program).args(arguments).exec());
    ExitCode::FAILURE
}
