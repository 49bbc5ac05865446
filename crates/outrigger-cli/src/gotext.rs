//! What Go programs say of calls that fail, and what can be done about it.

use outrigger_host::netrpc::SERVICE_NAME;
use outrigger_wire::Excerpt;

use crate::descriptors::MethodName;
use crate::failure::{Exit, Failure, printable};
use crate::gotype::GoTypes;

/// The longest name of a type that is looked at, in bytes.
const MOST_NAMED: usize = 1024;

/// What was sent as the argument.
pub(crate) struct Sent {
    /// Its type, as Go writes it.
    pub(crate) ty: String,
    /// Whether the command line stated that type.
    pub(crate) stated: bool,
}

/// The text of a server, as a failure with what may help.
pub(crate) fn explained(text: &str, method: &MethodName, sent: &Sent) -> Failure {
    let name = method.dotted();
    if text.starts_with("rpc: can't find service ") {
        let message = format!("the plugin's object has no service `{}`", method.service);
        let failure = Failure::usage("unknown-service", message);
        return match method.service == SERVICE_NAME {
            true => failure,
            false => failure.help(format!(
                "whatever its Go type is called, an object is served as `{SERVICE_NAME}`: \
                 `--method {SERVICE_NAME}.{}`",
                method.method
            )),
        };
    }
    if text.starts_with("rpc: can't find method ") {
        let message = format!("the plugin's object has no method `{}`", method.method);
        let failure = Failure::usage("unknown-method", message)
            .note("net/rpc cannot list the methods it has");
        return match capitalised(&method.method) {
            Some(better) => failure.help(format!(
                "Go serves methods with a capital letter only: `--method {}.{better}`",
                method.service
            )),
            None => failure.help(
                "they are those of the type that `Server` returns in the plugin's source, \
                 with two arguments and an `error` as result",
            ),
        };
    }
    let said = Excerpt::new(text.as_bytes());
    let Some(reason) = text.strip_prefix("gob: ") else {
        return Failure::new(
            Exit::Failed,
            "rpc-failed",
            format!("`{name}` failed: {said}"),
        );
    };
    let origin = match sent.stated {
        true => "as `--type` says",
        false => "as the data implies",
    };
    let failure = Failure::usage(
        "argument-mismatch",
        format!("`{name}` takes another argument: {said}"),
    )
    .note(format!(
        "it was sent as `{}`, {origin}",
        printable(&sent.ty)
    ));
    advice(reason).into_iter().fold(failure, Failure::help)
}

/// What to change, by what the decoder at the other end complained of.
fn advice(reason: &str) -> Option<String> {
    if let Some(name) = between(reason, "name not registered for interface: \"", "\"") {
        let other = match name {
            "[]interface {}" => {
                " or a list of one type, such as `{\"@type\": \"[]string\", \"value\": […]}`"
            }
            _ => "",
        };
        return Some(format!(
            "the plugin did not register `{}` (`gob.Register`): send a type that it knows{other}",
            printable(name)
        ));
    }
    if reason.contains("can only be decoded from remote interface type") {
        return Some(wanted("interface {}"));
    }
    if let Some(local) = between(
        reason,
        "decoding into local type ",
        ", received remote type",
    ) {
        return Some(wanted(local));
    }
    if let Some(local) = between(reason, "expected ", ", received ") {
        return Some(wanted(local));
    }
    if let Some(local) = between(reason, "wrong type (", ")") {
        let field = reason.split(" field ").nth(1).unwrap_or("the field");
        return Some(format!(
            "state `{}` for {} in `--type`",
            printable(local),
            printable(field)
        ));
    }
    let nothing_in_common = ["no fields matched", "none of the fields received"];
    let disjoint = nothing_in_common.iter().any(|words| reason.contains(words));
    disjoint.then(|| {
        "fields are found by their names in Go, which begin with a capital letter".to_owned()
    })
}

/// How to send what the other end wants, by its name for that type.
fn wanted(local: &str) -> String {
    let local = local.trim_start_matches('*');
    let shown = printable(local);
    if local == "interface {}" {
        return "the method takes any value; send that with `--type 'interface{}'`".to_owned();
    }
    match GoTypes::default().parse(local) {
        Ok(_) => format!("the method takes a `{shown}`; send that with `--type '{shown}'`"),
        Err(_) => format!(
            "the method takes a `{shown}`: state what that is in its source, \
             such as `--type 'struct{{Name string}}'`"
        ),
    }
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    let (found, _) = rest.split_once(after)?;
    (1..=MOST_NAMED).contains(&found.len()).then_some(found)
}

fn capitalised(name: &str) -> Option<String> {
    let mut letters = name.chars();
    let first = letters.next().filter(|first| first.is_lowercase())?;
    Some(first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explain(text: &str, method: &str) -> Failure {
        let method = method.parse().expect("a method");
        let sent = Sent {
            ty: "int".into(),
            stated: false,
        };
        explained(text, &method, &sent)
    }

    #[test]
    fn what_go_says_becomes_a_code_and_advice() {
        for (text, method, code, help) in [
            (
                "rpc: can't find service animal.Speak",
                "animal.Speak",
                "unknown-service",
                "`--method Plugin.Speak`",
            ),
            (
                "rpc: can't find method Plugin.speak",
                "Plugin.speak",
                "unknown-method",
                "`--method Plugin.Speak`",
            ),
            (
                "rpc: can't find method Plugin.Nothing",
                "Plugin.Nothing",
                "unknown-method",
                "that `Server` returns",
            ),
            (
                "gob: local interface type *interface {} can only be decoded from remote interface type; received concrete type int",
                "Plugin.Do",
                "argument-mismatch",
                "`--type 'interface{}'`",
            ),
            (
                "gob: decoding into local type *map[string]interface {}, received remote type int",
                "Plugin.Do",
                "argument-mismatch",
                "`--type 'map[string]interface {}'`",
            ),
            (
                "gob: decoding into local type *main.Pair, received remote type int",
                "Plugin.Do",
                "argument-mismatch",
                "`--type 'struct{",
            ),
            (
                "gob: wrong type (int64) for received field Pair.A",
                "Plugin.Do",
                "argument-mismatch",
                "state `int64` for Pair.A",
            ),
            (
                "gob: type mismatch: no fields matched compiling decoder for Pair",
                "Plugin.Do",
                "argument-mismatch",
                "capital letter",
            ),
            (
                "gob: name not registered for interface: \"[]interface {}\"",
                "Plugin.Do",
                "argument-mismatch",
                "[]string",
            ),
            (
                "gob: expected string, received int",
                "Plugin.Do",
                "argument-mismatch",
                "`--type 'string'`",
            ),
            (
                "gob: expected interface {}, received int",
                "Plugin.Do",
                "argument-mismatch",
                "any value",
            ),
            (
                "gob: none of the fields received (\"A\") is one of my::Words",
                "Plugin.Do",
                "argument-mismatch",
                "capital letter",
            ),
        ] {
            let failure = explain(text, method);
            assert_eq!(
                (&*failure.code, failure.exit),
                (code, Exit::Usage),
                "{text}"
            );
            assert!(failure.help.concat().contains(help), "{text}: {failure:?}");
        }
    }

    #[test]
    fn the_text_of_a_method_is_quoted() {
        let failure = explain("no \u{1b}[31mkey", "Plugin.Get");
        assert_eq!((&*failure.code, failure.exit), ("rpc-failed", Exit::Failed));
        assert!(failure.message.starts_with("`Plugin.Get` failed: \"no "));
        assert!(!failure.message.contains('\u{1b}'));
    }
}
