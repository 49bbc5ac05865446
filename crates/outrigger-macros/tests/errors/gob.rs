use outrigger_gob_derive::Gob;

#[derive(Gob)]
enum Choice {
    One,
}

#[derive(Gob)]
struct Unnamed(u32, u32);

#[derive(Gob)]
struct Borrowed<'a> {
    text: &'a str,
}

#[derive(Gob)]
struct Unsent {
    _name: String,
}

#[derive(Gob)]
struct Twice {
    name: String,
    #[gob(rename = "Name")]
    other: String,
}

#[derive(Gob)]
struct Small {
    #[gob(rename = "name")]
    name: String,
}

#[derive(Gob)]
#[gob(nome = "main.Unknown")]
struct Unknown {
    name: String,
}

fn main() {}
