//! Values from elsewhere put into the tree of a file, and the keys that a tree may have.

use crate::configuration::sections::{CONFIGURATION, VARIABLES};
use crate::keys::Section;
use crate::tree::{Key, Kind, Node};

/// The path of every key with one value, in the order of the tables.
pub(crate) fn leaves() -> Vec<String> {
    let mut paths = Vec::new();
    add_leaves(&CONFIGURATION, "", &mut paths);
    paths
}

fn add_leaves(section: &Section, place: &str, paths: &mut Vec<String>) {
    for key in section.keys {
        let path = match place {
            "" => key.name().to_owned(),
            place => format!("{place}.{}", key.name()),
        };
        match key.keys() {
            Some(section) => add_leaves(section, &path, paths),
            // The shape of the file, and what is said of single plugins, is the file's alone.
            None if place.is_empty() => {}
            None => paths.push(path),
        }
    }
}

/// The environment variable that sets a key.
pub(crate) fn variable(path: &str) -> Option<String> {
    let (section, name) = path.rsplit_once('.')?;
    let (_, before) = VARIABLES.iter().find(|(known, _)| *known == section)?;
    Some(format!("OUTRIGGER_{before}{}", name.to_ascii_uppercase()))
}

/// The value at a path of keys.
pub(crate) fn find<'n>(root: &'n Node, path: &str) -> Option<&'n Node> {
    path.split('.').try_fold(root, |node, key| child(node, key))
}

/// The value of one key of a map.
pub(crate) fn child<'n>(node: &'n Node, key: &str) -> Option<&'n Node> {
    let Kind::Map(entries) = &node.kind else {
        return None;
    };
    let mut entries = entries.iter();
    entries
        .find(|(known, _)| known.text == key)
        .map(|(_, value)| value)
}

/// Puts a value at a path, in place of what stands there.
pub(crate) fn put(root: &mut Node, path: &str, leaf: Node) {
    let mut node = root;
    for key in path.split('.') {
        if !matches!(node.kind, Kind::Map(_)) {
            // Nothing, or what is reported where the file is read alone.
            *node = Node {
                at: leaf.at,
                kind: Kind::Map(Vec::new()),
            };
        }
        let Kind::Map(entries) = &mut node.kind else {
            return;
        };
        let index = match entries.iter().position(|(known, _)| known.text == key) {
            Some(index) => index,
            None => {
                let (at, text) = (leaf.at, key.to_owned());
                let kind = Kind::Map(Vec::new());
                entries.push((Key { at, text }, Node { at, kind }));
                entries.len() - 1
            }
        };
        node = &mut entries[index].1;
    }
    *node = leaf;
}

/// Calls a key of a section by its other name.
pub(crate) fn rename(root: &mut Node, section: &str, from: &str, to: &str) {
    let Kind::Map(sections) = &mut root.kind else {
        return;
    };
    let found = sections.iter_mut().filter(|(key, _)| key.text == section);
    for (_, node) in found {
        if let Kind::Map(entries) = &mut node.kind {
            for (key, _) in entries.iter_mut().filter(|(key, _)| key.text == from) {
                to.clone_into(&mut key.text);
            }
        }
    }
}

/// The entries of one map over those of another.
pub(crate) fn over(below: Option<&Node>, above: &Node) -> Node {
    let mut entries = match below.map(|node| &node.kind) {
        Some(Kind::Map(entries)) => entries.clone(),
        _ => Vec::new(),
    };
    if let Kind::Map(more) = &above.kind {
        for (key, value) in more {
            entries.retain(|(known, _)| known.text != key.text);
            entries.push((key.clone(), value.clone()));
        }
    }
    Node {
        at: above.at,
        kind: Kind::Map(entries),
    }
}
