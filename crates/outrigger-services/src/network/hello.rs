//! The name in a TLS greeting that passes by: on a connection that was granted
//! by name, a greeting for another name does not leave the host.

use bytes::{Bytes, BytesMut};
use rustls::server::Acceptor;

/// Most bytes of a greeting that are kept until it is complete.
const MOST_HELD: usize = 64 << 10;

/// Watches the first bytes that a plugin sends.
pub(crate) struct HelloGuard {
    state: State,
}

enum State {
    /// Nothing came yet.
    Fresh { name: String },
    /// A greeting has begun.
    Greeting {
        name: String,
        acceptor: Box<Acceptor>,
        held: BytesMut,
    },
    /// It is not TLS, or the names agree.
    Settled,
}

/// Why the bytes may not leave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Mismatch {
    /// The greeting is for this other name.
    OtherName(String),
    /// It begins as a greeting and is none that can be read.
    Unreadable,
}

impl HelloGuard {
    /// For a connection that was granted as `name`; an address has no name to
    /// compare with.
    pub(crate) fn new(name: Option<&str>) -> Self {
        Self {
            state: match name {
                Some(name) => State::Fresh { name: name.into() },
                None => State::Settled,
            },
        }
    }

    /// Takes what the plugin sends and returns what may leave now.
    pub(crate) fn pass(&mut self, data: Bytes) -> Result<Bytes, Mismatch> {
        let state = std::mem::replace(&mut self.state, State::Settled);
        let (name, mut acceptor, mut held) = match state {
            State::Settled => return Ok(data),
            State::Fresh { name } => match data.first() {
                None => {
                    self.state = State::Fresh { name };
                    return Ok(data);
                }
                // A TLS record that carries a handshake.
                Some(0x16) => (name, Box::default(), BytesMut::new()),
                Some(_) => return Ok(data),
            },
            State::Greeting {
                name,
                acceptor,
                held,
            } => (name, acceptor, held),
        };
        held.extend_from_slice(&data);
        // The second byte is TLS's major version.
        if held.get(1).is_some_and(|&version| version != 3) {
            return Ok(held.freeze());
        }
        let mut rest = &data[..];
        loop {
            let read = acceptor.read_tls(&mut rest);
            match acceptor.accept() {
                Ok(Some(accepted)) => {
                    return match accepted.client_hello().server_name() {
                        Some(found) if !found.eq_ignore_ascii_case(&name) => {
                            Err(Mismatch::OtherName(found.to_owned()))
                        }
                        Some(_) | None => Ok(held.freeze()),
                    };
                }
                Ok(None) if rest.is_empty() => break,
                Ok(None) => {}
                Err(_) => return Err(Mismatch::Unreadable),
            }
            if read.map_or(true, |read| read == 0) {
                return Err(Mismatch::Unreadable);
            }
        }
        if held.len() > MOST_HELD {
            return Err(Mismatch::Unreadable);
        }
        self.state = State::Greeting {
            name,
            acceptor,
            held,
        };
        Ok(Bytes::new())
    }

    /// What is still held when the plugin sends no more.
    pub(crate) fn finish(&mut self) -> Bytes {
        match std::mem::replace(&mut self.state, State::Settled) {
            State::Greeting { held, .. } => held.freeze(),
            State::Fresh { .. } | State::Settled => Bytes::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::ClientConfig;

    use super::*;

    fn greeting(name: &str) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let name = name.to_owned().try_into().unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_greeting_for_the_granted_name_passes_whole_and_in_pieces() {
        for hello in [greeting("a.example"), greeting("127.0.0.1")] {
            for size in [1, 7, 100, 10_000] {
                let mut guard = HelloGuard::new(Some("a.example"));
                let mut passed = Vec::new();
                for piece in hello.chunks(size) {
                    let piece = Bytes::copy_from_slice(piece);
                    passed.extend(guard.pass(piece).unwrap());
                }
                passed.extend(guard.pass(Bytes::from_static(b"more")).unwrap());
                assert_eq!(passed, [&hello[..], b"more"].concat());
            }
        }
    }

    #[test]
    fn nothing_of_a_greeting_for_another_name_passes() {
        for size in [1, 100, 10_000] {
            let mut guard = HelloGuard::new(Some("a.example"));
            let mut failed = None;
            for piece in greeting("b.example").chunks(size) {
                match guard.pass(Bytes::copy_from_slice(piece)) {
                    Ok(passed) => assert!(passed.is_empty()),
                    Err(mismatch) => {
                        failed = Some(mismatch);
                        break;
                    }
                }
            }
            assert_eq!(failed, Some(Mismatch::OtherName("b.example".into())));
        }
    }

    #[test]
    fn other_protocols_and_addresses_pass_at_once() {
        let mut guard = HelloGuard::new(Some("a.example"));
        let text = Bytes::from_static(b"GET / HTTP/1.1\r\n");
        assert_eq!(guard.pass(text.clone()).unwrap(), text);
        let other = Bytes::from(greeting("b.example"));
        assert_eq!(HelloGuard::new(None).pass(other.clone()).unwrap(), other);
        let mut guard = HelloGuard::new(Some("a.example"));
        assert!(guard.pass(Bytes::from_static(&[0x16])).unwrap().is_empty());
        assert_eq!(
            guard.pass(Bytes::from_static(&[7])).unwrap(),
            &[0x16, 7][..]
        );
    }

    #[test]
    fn an_unreadable_greeting_does_not_pass() {
        let mut guard = HelloGuard::new(Some("a.example"));
        let bytes = Bytes::from([&[0x16, 3, 1, 0, 8][..], &[9; 8]].concat());
        assert_eq!(guard.pass(bytes), Err(Mismatch::Unreadable));
        let mut guard = HelloGuard::new(Some("a.example"));
        guard.pass(Bytes::from_static(&[0x16, 3])).unwrap();
        assert_eq!(guard.finish(), &[0x16, 3][..]);
    }
}
