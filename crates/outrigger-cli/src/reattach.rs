//! What `--reattach` says: how to join a plugin that runs already.

use std::collections::BTreeSet;
use std::str::FromStr;

use outrigger_host::{
    Address, AllowedTransports, AppProtocolVersion, HandshakeLine, Network, Reattach, Transport,
};
use outrigger_wire::HandshakeRules;
use serde_json::Value;

use crate::failure::printable;

/// A plugin that runs already.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Joined(pub(crate) Reattach);

impl FromStr for Joined {
    type Err = String;

    /// A handshake line, or go-plugin's configuration as JSON, alone or as the
    /// only member of an object, as Terraform prints it.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        match text.starts_with('{') {
            true => configuration(text),
            false => line(text),
        }
        .map(Self)
    }
}

fn line(text: &str) -> Result<Reattach, String> {
    let version = text
        .split('|')
        .nth(1)
        .and_then(|version| version.parse().ok());
    let offered: BTreeSet<_> = version.map(AppProtocolVersion).into_iter().collect();
    let rules = HandshakeRules {
        offered: &offered,
        allowed: AllowedTransports::ALL,
        mux_requested: false,
    };
    let line = HandshakeLine::parse(text.as_bytes(), &rules)
        .map_err(|error| printable(&error.to_string()))?;
    if line.certificate.is_some() {
        return Err(
            "the plugin expects the certificate of the host that started it (AutoMTLS): \
             start it without `PLUGIN_CLIENT_CERT`"
                .to_owned(),
        );
    }
    if text.split('|').nth(6) == Some("true") {
        return Err(
            "the plugin multiplexes its broker, which only the host that started it can use: \
             start it without `PLUGIN_MULTIPLEX_GRPC`"
                .to_owned(),
        );
    }
    Ok(Reattach {
        transport: line.transport,
        version: line.app_version,
        address: line.address,
        pid: None,
        started: None,
        test: true,
    })
}

fn configuration(text: &str) -> Result<Reattach, String> {
    const SHAPE: &str = "expected {\"Protocol\": \"grpc\", \"ProtocolVersion\": 5, \"Pid\": 1, \
         \"Addr\": {\"Network\": \"unix\", \"String\": \"/tmp/plugin1\"}}";
    let value: Value = serde_json::from_str(text).map_err(|error| printable(&error.to_string()))?;
    let own = match (&value["Addr"], value.as_object()) {
        (Value::Null, Some(members)) if members.len() == 1 => {
            members.values().next().unwrap_or(&value)
        }
        (Value::Null, Some(members)) if members.len() > 1 => {
            return Err("it names several plugins; give the configuration of one".to_owned());
        }
        _ => &value,
    };
    let text = |member: &Value| member.as_str().map(str::to_owned);
    let number = |member: &Value| match member {
        Value::Null => Some(0),
        member => member.as_u64().and_then(|n| u32::try_from(n).ok()),
    };
    let transport = match own["Protocol"].as_str() {
        Some("grpc") => Transport::Grpc,
        // What go-plugin makes of none.
        Some("netrpc" | "") => Transport::NetRpc,
        None if own["Protocol"].is_null() => Transport::NetRpc,
        _ => return Err("the `Protocol` is `grpc` or `netrpc`".to_owned()),
    };
    let network = match own["Addr"]["Network"].as_str() {
        Some("unix") => Network::Unix,
        Some("tcp") => Network::Tcp,
        _ => return Err(SHAPE.to_owned()),
    };
    let version = number(&own["ProtocolVersion"]).ok_or(SHAPE)?;
    let pid = number(&own["Pid"]).ok_or(SHAPE)?;
    let pid = Some(pid).filter(|pid| *pid != 0);
    Ok(Reattach {
        transport,
        version: AppProtocolVersion(version),
        address: Address {
            network,
            text: text(&own["Addr"]["String"]).ok_or(SHAPE)?,
        },
        pid,
        started: None,
        test: pid.is_none() || own["Test"] == true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(text: &str) -> Result<Reattach, String> {
        text.parse::<Joined>().map(|joined| joined.0)
    }

    #[test]
    fn a_handshake_line_says_how_to_join() {
        let found = joined("1|5|unix|/tmp/p|grpc|\n").expect("good");
        assert_eq!(
            (found.transport, found.version, found.pid),
            (Transport::Grpc, AppProtocolVersion(5), None)
        );
        assert_eq!(
            found.address,
            Address::unix("/tmp/p".as_ref()).expect("an address")
        );
        assert_eq!(
            joined("1|1|tcp|127.0.0.1:9").expect("good").transport,
            Transport::NetRpc
        );
        for bad in [
            "",
            "1|1|unix",
            "2|1|unix|/tmp/p|grpc",
            "1|x|unix|/tmp/p|grpc",
            "1|1|unix|/tmp/p|grpc||true",
        ] {
            assert!(joined(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_reattach_configuration_says_how_to_join() {
        let own = r#"{"Protocol":"grpc","ProtocolVersion":6,"Pid":42,"Test":true,"Addr":{"Network":"tcp","String":"127.0.0.1:9"}}"#;
        let alone = joined(own).expect("good");
        assert_eq!(
            (alone.version, alone.pid),
            (AppProtocolVersion(6), Some(42))
        );
        let named = format!("{{\"registry.terraform.io/a/b\": {own}}}");
        assert_eq!(joined(&named), Ok(alone));
        let two = format!("{{\"a\": {own}, \"b\": {own}}}");
        assert!(joined(&two).expect_err("two").contains("several"));
        for bad in [
            r#"{"Addr":{"Network":"udp","String":"x"}}"#,
            "{}",
            "{",
            r#"{"Protocol":"http","Addr":{"Network":"tcp","String":"x"}}"#,
        ] {
            assert!(joined(bad).is_err(), "{bad}");
        }
    }
}
