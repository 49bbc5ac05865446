//! What a peer can make us hold.

/// The longest name of a type in an interface that Go reads.
pub(crate) const MAX_INTERFACE_NAME: usize = 1024;

/// Bounds of one [`Decoder`](crate::Decoder); whatever is more is an error.
///
/// ```
/// use outrigger_gob::Limits;
///
/// let limits = Limits {
///     message: 64 * 1024,
///     ..Limits::default()
/// };
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one message, and of one value with the messages it continues
    /// in. 64 MiB by default.
    pub message: usize,
    /// Bytes of memory that one value may take when it is decoded, about; the
    /// encoding of many small elements is much smaller than they are. What an
    /// [`Interface`](crate::Interface) holds is a value of its own, which takes
    /// more only when it is looked into. 256 MiB by default.
    pub memory: usize,
    /// Types that a stream may define or refer to. 1024 by default.
    pub types: usize,
    /// Bytes of all definitions of a stream together. 1 MiB by default.
    pub definitions: usize,
    /// How deep structs, lists, maps and interfaces may nest. Each level takes
    /// some of the stack; the default of 256 takes less than 2 MiB even
    /// without optimisation.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            message: 64 * 1024 * 1024,
            memory: 256 * 1024 * 1024,
            types: 1024,
            definitions: 1024 * 1024,
            depth: 256,
        }
    }
}
