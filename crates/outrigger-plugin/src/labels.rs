//! What tells a host's records which calls belong together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::rand::{GetRandomFlags, getrandom};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

type Label = MetadataValue<Ascii>;

/// Marks every call with a label for the connection (`client`) and one for the
/// call (`request`). They are for the host's records only: a host knows its
/// plugin by the connection and believes no label.
#[derive(Clone, Debug)]
pub struct Labels {
    client: Label,
    calls: Calls,
}

/// How the calls of a connection are told apart.
#[derive(Clone, Debug)]
enum Calls {
    Numbered(Arc<AtomicU64>),
    /// By UUIDs, as the contract of `hostserve.v1` has it.
    Unique,
}

impl Labels {
    pub(crate) fn numbered() -> Self {
        Self {
            client: unique(),
            calls: Calls::Numbered(Arc::default()),
        }
    }

    pub(crate) fn unique() -> Self {
        Self {
            client: unique(),
            calls: Calls::Unique,
        }
    }

    /// The label of the connection.
    pub(crate) fn client(&self) -> &str {
        self.client.to_str().unwrap_or_default()
    }
}

impl Interceptor for Labels {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let call = match &self.calls {
            Calls::Numbered(next) => next.fetch_add(1, Ordering::Relaxed).into(),
            Calls::Unique => unique(),
        };
        let metadata = request.metadata_mut();
        metadata.insert("client", self.client.clone());
        metadata.insert("request", call);
        Ok(request)
    }
}

fn unique() -> Label {
    Label::try_from(uuid()).unwrap_or_else(|_| Label::from_static("unlabelled"))
}

/// A UUID of version 7: the milliseconds since 1970, then random bits.
fn uuid() -> String {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let mut random = [0; 16];
    // The system has random numbers, and so few are never interrupted.
    let _ = getrandom(&mut random, GetRandomFlags::empty());
    // What is random but the time, the version (four bits) and the variant (two).
    let random = u128::from_ne_bytes(random) & !(0xf << 76 | 0b11 << 62) & (u128::MAX >> 48);
    let bits = since.as_millis() << 80 | 7 << 76 | 0b10 << 62 | random;
    let mut text = format!("{bits:032x}");
    for dash in [8, 13, 18, 23] {
        text.insert(dash, '-');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_a_uuid_of_version_7_that_tells_the_time_and_is_never_the_same() {
        let before = SystemTime::now().duration_since(UNIX_EPOCH).expect("now");
        let texts: std::collections::BTreeSet<_> = (0..1000).map(|_| uuid()).collect();
        assert_eq!(texts.len(), 1000);
        for text in texts {
            let parts: Vec<_> = text.split('-').collect();
            assert_eq!(
                parts.iter().map(|part| part.len()).collect::<Vec<_>>(),
                [8, 4, 4, 4, 12]
            );
            assert!(parts[2].starts_with('7') && parts[3].starts_with(['8', '9', 'a', 'b']));
            let millis = u64::from_str_radix(&(parts[0].to_owned() + parts[1]), 16).expect("hex");
            let since = u128::from(millis)
                .checked_sub(before.as_millis())
                .expect("not before");
            assert!(since < 60_000, "{since} ms");
        }
    }
}
