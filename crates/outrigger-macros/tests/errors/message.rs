use outrigger_macros::message;

#[message]
pub struct Unnamed(String);

#[message]
pub struct Generic<T> {
    value: T,
}

#[message]
pub struct SameNumber {
    name: String,
    #[tag = 1]
    times: u32,
}

#[message]
pub struct Sorted {
    by_ratio: std::collections::BTreeMap<f64, String>,
}

#[message]
pub struct Itself {
    inner: Box<Itself>,
}

fn main() {}
