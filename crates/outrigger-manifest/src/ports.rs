//! Sets of ports.

use std::fmt;

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::check::{Check, Side};
use crate::keys::Shape;
use crate::message::quoted;
use crate::problem::ProblemCode;
use crate::shapes::filled_list;
use crate::tree::{Kind, Node, is_null};

/// A set of ports from 1 to 65535: sorted ranges that neither touch nor overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ports(Vec<(u16, u16)>);

impl Ports {
    /// Every port.
    #[must_use]
    pub fn all() -> Ports {
        Ports(vec![(1, u16::MAX)])
    }

    /// The union of ranges, both ends included.
    pub(crate) fn from_ranges(mut ranges: Vec<(u16, u16)>) -> Ports {
        ranges.sort_unstable();
        let mut merged: Vec<(u16, u16)> = Vec::new();
        for (low, high) in ranges {
            match merged.last_mut() {
                Some(last) if u32::from(low) <= u32::from(last.1) + 1 => last.1 = last.1.max(high),
                _ => merged.push((low, high)),
            }
        }
        Ports(merged)
    }

    /// Whether the port is in the set.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        self.0
            .iter()
            .any(|(low, high)| (*low..=*high).contains(&port))
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ranges, sorted, both ends included.
    pub fn ranges(&self) -> impl Iterator<Item = (u16, u16)> + '_ {
        self.0.iter().copied()
    }

    pub(crate) fn intersection(&self, other: &Ports) -> Ports {
        let mut shared = Vec::new();
        for (a, b) in &self.0 {
            for (c, d) in &other.0 {
                let (low, high) = (*a.max(c), *b.min(d));
                if low <= high {
                    shared.push((low, high));
                }
            }
        }
        Ports::from_ranges(shared)
    }

    pub(crate) fn without(&self, other: &Ports) -> Ports {
        let mut rest = self.0.clone();
        for (c, d) in &other.0 {
            rest = rest
                .into_iter()
                .flat_map(|(a, b)| {
                    let before = (a < *c).then(|| (a, b.min(c.saturating_sub(1))));
                    let after = (b > *d).then(|| (a.max(d.saturating_add(1)), b));
                    [before, after].into_iter().flatten()
                })
                .collect();
        }
        Ports::from_ranges(rest)
    }

    pub(crate) fn union(&self, other: &Ports) -> Ports {
        Ports::from_ranges(self.0.iter().chain(&other.0).copied().collect())
    }

    /// A port or a range as a manifest spells it.
    pub(crate) fn parse_range(text: &str) -> Option<(u16, u16)> {
        let port = |text: &str| {
            // `080` might be meant in octal.
            let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
            text.parse::<u16>().ok().filter(|_| plain)
        };
        match text.split_once('-') {
            None => port(text).map(|port| (port, port)),
            Some((low, high)) => {
                let (low, high) = (port(low.trim_end())?, port(high.trim_start())?);
                (low <= high).then_some((low, high))
            }
        }
    }
}

impl Shape for Ports {
    type Value = Ports;

    fn kind(_: Side) -> String {
        "list of ports and ranges".to_owned()
    }

    fn schema(_: Side) -> Value {
        filled_list(json!({"anyOf": [
            {"type": "integer", "minimum": 1, "maximum": 65535},
            {"type": "string", "pattern": "^[0-9]{1,5}(-[0-9]{1,5})?$"},
        ]}))
    }

    fn read(check: &mut Check, node: &Node, location: &str) -> Option<Ports> {
        let mut ports = Ports::default();
        let mut good = true;
        for (location, item) in check.filled_list(node, location)? {
            let Some(range) = read_range(check, item, &location) else {
                good = false;
                continue;
            };
            let added = Ports::from_ranges(vec![range]);
            if !ports.intersection(&added).is_empty() {
                check.repeated(item.at, &location, &added.to_string());
            }
            ports = ports.union(&added);
        }
        good.then_some(ports)
    }
}

fn read_range(check: &mut Check, item: &Node, location: &str) -> Option<(u16, u16)> {
    let (Kind::Plain(text) | Kind::Text(text)) = &item.kind else {
        check.wrong_type(item, location, "a port");
        return None;
    };
    let range = Ports::parse_range(text);
    if range.is_none() && is_null(&item.kind) {
        check.wrong_type(item, location, "a port");
    } else if range.is_none() {
        let message = format!("{} is not a port", quoted(text));
        check
            .report(item.at, ProblemCode::InvalidPort, location, message)
            .near(near_port(text))
            .help("ports are 1 to 65535, and ranges such as `8000-8010`");
    }
    range
}

/// `080` → `80`, `8000 to 8010` → `8000-8010`.
fn near_port(text: &str) -> Option<String> {
    let parts: Vec<&str> = text
        .split(|c: char| !c.is_ascii_digit())
        .filter(|part| !part.is_empty())
        .map(|part| part.trim_start_matches('0'))
        .collect();
    let between: String = text.chars().filter(|c| !c.is_ascii_digit()).collect();
    let known = match parts.len() {
        1 => between.is_empty(),
        2 => matches!(between.trim(), "-" | ":" | ".." | "to" | "–" | "—"),
        _ => false,
    };
    let near = parts.join("-");
    (known && near != text)
        .then(|| Ports::parse_range(&near))?
        .map(|_| near)
}

/// `443, 8000-8010`.
impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (low, high)) in self.0.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            if low == high {
                write!(f, "{comma}{low}")?;
            } else {
                write!(f, "{comma}{low}-{high}")?;
            }
        }
        Ok(())
    }
}

impl Serialize for Ports {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(untagged)]
        enum Item {
            One(u16),
            Range(String),
        }
        serializer.collect_seq(self.0.iter().map(|(low, high)| {
            if low == high {
                Item::One(*low)
            } else {
                Item::Range(format!("{low}-{high}"))
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ranges: &[(u16, u16)]) -> Ports {
        Ports::from_ranges(ranges.to_vec())
    }

    #[test]
    fn neighbours_are_merged_and_the_ends_of_the_range_hold() {
        assert_eq!(set(&[(5, 9), (1, 4), (20, 30)]).to_string(), "1-9, 20-30");
        let edges = Ports::all().without(&set(&[(1, 1), (65535, 65535)]));
        assert_eq!(edges.to_string(), "2-65534");
        assert!(Ports::all().without(&Ports::all()).is_empty());
    }

    #[test]
    fn only_ports_are_ports() {
        assert_eq!(Ports::parse_range("443"), Some((443, 443)));
        assert_eq!(Ports::parse_range("8000-8010"), Some((8000, 8010)));
        for wrong in [
            "0", "65536", "-1", "+80", "80-", "-80", "9-8", "a", "", "1-2-3", "0x50", "080", "00",
            "1-080",
        ] {
            assert_eq!(Ports::parse_range(wrong), None, "{wrong}");
        }
    }
}
