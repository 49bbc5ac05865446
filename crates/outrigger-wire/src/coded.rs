//! What every error here can say of itself.

use std::borrow::Cow;
use std::error::Error;

/// An error with a stable name and, where something surely helps, advice.
///
/// `Display` says what went wrong in one phrase; a program decides by the code,
/// which does not change when the words do.
///
/// ```
/// use outrigger_wire::{Coded, Transport};
///
/// let error = "grcp".parse::<Transport>().unwrap_err();
/// assert_eq!(error.code(), "unknown-transport");
/// assert_eq!(error.hint(), None);
/// ```
pub trait Coded: Error {
    /// The stable name of this kind of error: words in lower case, joined by
    /// hyphens.
    fn code(&self) -> &'static str;

    /// One thing the reader can do now, if there is one that surely helps.
    fn hint(&self) -> Option<Cow<'static, str>> {
        None
    }
}

/// Implements [`Coded`] for errors that have a `code` of their own as well, which
/// callers reach without this trait in scope.
///
/// ```
/// #[derive(Debug)]
/// struct Late;
///
/// impl std::fmt::Display for Late {
///     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
///         f.write_str("too late")
///     }
/// }
///
/// impl std::error::Error for Late {}
///
/// impl Late {
///     fn code(&self) -> &'static str {
///         "too-late"
///     }
/// }
///
/// outrigger_wire::coded!(Late);
///
/// let error: Box<dyn outrigger_wire::Coded> = Box::new(Late);
/// assert_eq!((error.code(), error.hint()), ("too-late", None));
/// ```
#[macro_export]
macro_rules! coded {
    ($($error:ty),+ $(,)?) => {$(
        impl $crate::Coded for $error {
            fn code(&self) -> &'static str {
                <$error>::code(self)
            }
        }
    )+};
}
