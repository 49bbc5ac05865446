//! The SDK against a real host and real services, in a process of its own, over
//! every kind of connection, by descriptor and by call.
//!
//! This program is both sides: started by a host it is the plugin, which makes the
//! `checks`; else it runs the tests, which start it again as their plugin. The
//! SDKs for other languages are held to the same.

mod checks;
mod interface;
mod other_languages;
mod plugin;
mod rust;
mod side;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    if std::env::var_os(plugin::COOKIE.0).is_some() {
        return plugin::serve();
    }
    let tests = rust::tests().into_iter().chain(other_languages::tests());
    libtest_mimic::run(&Arguments::from_args(), tests.collect()).exit_code()
}

/// Tests that are async functions, under their own names.
macro_rules! trials {
    ($($name:ident),* $(,)?) => {
        vec![$(crate::trial(stringify!($name), $name)),*]
    };
}
use trials;

/// A test that is run on a runtime of its own; a panic fails it.
fn trial<F: Future<Output = ()>>(
    name: &'static str,
    test: impl FnOnce() -> F + Send + 'static,
) -> Trial {
    Trial::test(name, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(test());
        Ok(())
    })
}
