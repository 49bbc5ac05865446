//! A plugin that misbehaves in the one way that its argument names, written by
//! hand from the bytes up.

mod http2;
mod lines;
mod serving;
mod yamux;

use std::process::ExitCode;

use outrigger_testing::Fault;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let fault = arguments.next().unwrap_or_default().parse::<Fault>();
    let again = arguments.next().is_some();
    match fault {
        // Whatever is written to a pipe that the host has closed fails, and then all is said.
        Ok(fault) => misbehave(fault, again).unwrap_or(ExitCode::SUCCESS),
        Err(error) => {
            lines::complain(&format!("{error}; the faults are {:?}\n", Fault::ALL));
            ExitCode::from(2)
        }
    }
}

fn misbehave(fault: Fault, again: bool) -> std::io::Result<ExitCode> {
    if fault == Fault::IgnoresSignals && !again {
        return Err(lines::ignoring_signals(fault));
    }
    if let Some(outcome) = lines::before_serving(fault)? {
        return Ok(outcome);
    }
    serving::serve(fault)
}
