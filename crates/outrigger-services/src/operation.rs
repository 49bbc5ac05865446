//! What a plugin may ask for: each operation has one name, under which it is
//! judged and recorded however the plugin asks for it.

use outrigger_manifest::{Capability, HostService};

use crate::arguments::Arguments;

/// One operation of a service, by its name in records: `filesystem.open`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) asked_of: AskedOf,
    pub(crate) name: &'static str,
    pub(crate) judged_by: JudgedBy,
}

/// Who is asked for an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AskedOf {
    /// What every plugin may ask.
    Session,
    /// A service of the host, which must be granted.
    Host(HostService),
    /// A service of the application's own, which was granted when its socket was made.
    Application,
}

/// What decides on an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JudgedBy {
    /// A grant for what the operation is about: a path, an address, a command.
    Grant,
    /// That its service is granted, or that its lease was.
    Service,
}

impl Operation {
    /// An operation of a service: one on files, the network or processes needs a
    /// grant for what it is about, any other one only its service.
    pub(crate) const fn new(service: HostService, name: &'static str) -> Self {
        let judged_by = match service {
            HostService::Filesystem | HostService::Network | HostService::Process => {
                JudgedBy::Grant
            }
            HostService::Environment | HostService::Clock | HostService::Log => JudgedBy::Service,
        };
        Self {
            asked_of: AskedOf::Host(service),
            name,
            judged_by,
        }
    }

    /// The same operation, on what was granted when its lease was made.
    pub(crate) const fn on_lease(self) -> Self {
        Self {
            judged_by: JudgedBy::Service,
            ..self
        }
    }

    /// An operation of every plugin.
    pub(crate) const fn of_session(name: &'static str) -> Self {
        Self {
            asked_of: AskedOf::Session,
            name,
            judged_by: JudgedBy::Service,
        }
    }

    /// An operation of the services of an application.
    pub(crate) const fn of_application(name: &'static str) -> Self {
        Self {
            asked_of: AskedOf::Application,
            name,
            judged_by: JudgedBy::Grant,
        }
    }

    pub(crate) fn capability(self) -> &'static str {
        match self.asked_of {
            AskedOf::Session => "session",
            AskedOf::Host(service) => service.as_str(),
            AskedOf::Application => Capability::Services.as_str(),
        }
    }

    pub(crate) fn full_name(self) -> String {
        format!("{}.{}", self.capability(), self.name)
    }
}

/// A message that asks for an operation. Whichever way the message comes in, the
/// operation has this name, is judged this way, and is recorded with these
/// arguments.
pub(crate) trait Described {
    const OPERATION: Operation;

    /// Puts into a record what the message asks for.
    fn show(&self, shown: &mut Arguments);
}

/// Describes messages, one row each: the operation, the message that asks for it,
/// and the fields that a record shows, in that order. `as` names the method of
/// [`Arguments`] for a field that is not shown like others of its type. A list that
/// is named before the rows has all these operations, and those `and` what follows.
macro_rules! described {
    (
        $(#[$doc:meta])*
        pub(crate) const $list:ident $(and [$($other:expr),* $(,)?])?;
        $($operation:expr, $message:ty { $($field:ident $(as $how:ident)?),* $(,)? })*
    ) => {
        $crate::operation::described! {
            $($operation, $message { $($field $(as $how)?),* })*
        }

        $(#[$doc])*
        pub(crate) const $list: &[$crate::operation::Operation] = &[
            $(<$message as $crate::operation::Described>::OPERATION,)*
            $($($other),*)?
        ];
    };
    ($($operation:expr, $message:ty { $($field:ident $(as $how:ident)?),* $(,)? })*) => {$(
        impl $crate::operation::Described for $message {
            const OPERATION: $crate::operation::Operation = $operation;

            #[allow(unused_variables, reason = "some messages have no fields")]
            fn show(&self, shown: &mut $crate::arguments::Arguments) {
                $($crate::operation::described!(@field shown, self.$field, $field $($how)?);)*
            }
        }
    )*};
    (@field $shown:ident, $value:expr, $field:ident) => {
        $crate::arguments::Show::show(&$value, stringify!($field), $shown);
    };
    (@field $shown:ident, $value:expr, $field:ident $how:ident) => {
        $shown.$how(stringify!($field), &$value);
    };
}

pub(crate) use described;
