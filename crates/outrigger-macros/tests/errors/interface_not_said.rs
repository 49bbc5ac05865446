use outrigger_macros::interface;

#[interface]
pub trait Greeter {
    async fn greet(&self, name: String) -> Result<String, String>;
}

fn main() {}
