//! One mistake each, in the shape of a method.

use outrigger_macros::interface;

#[interface(package = "greeter.v1")]
pub trait NotAsync {
    fn greet(&self, name: String) -> Result<String, String>;
}

#[interface(package = "greeter.v1")]
pub trait CannotFail {
    async fn greet(&self, name: String) -> String;
}

#[interface(package = "greeter.v1")]
pub trait Exclusive {
    async fn greet(&mut self, name: String) -> Result<String, String>;
}

#[interface(package = "greeter.v1")]
pub trait ByValue {
    async fn greet(self, name: String) -> Result<String, String>;
}

#[interface(package = "greeter.v1")]
pub trait WithoutReceiver {
    async fn greet(name: String) -> Result<String, String>;
}

#[interface(package = "greeter.v1")]
pub trait GenericMethod {
    async fn greet<T>(&self, name: T) -> Result<String, String>;
}

#[interface(package = "greeter.v1")]
pub trait ImplArgument {
    async fn greet(&self, name: impl Into<String>) -> Result<String, String>;
}

#[interface(package = "greeter.v1")]
pub trait UnknownMethodOption {
    #[method(nome = "Greet")]
    async fn greet(&self, name: String) -> Result<String, String>;
}

#[interface(package = "greeter.v1")]
pub trait WithBody {
    async fn greet(&self, name: String) -> Result<String, String> {
        Ok(name)
    }
}

#[interface(package = "greeter.v1")]
pub trait WithConstant {
    const NAME: &'static str;
}

#[interface(package = "greeter.v1")]
pub trait WithParameter<T> {
    async fn greet(&self, name: String) -> Result<String, String>;
}

#[interface(package = "greeter.v1", version = 2)]
pub trait UnknownOption {
    async fn greet(&self, name: String) -> Result<String, String>;
}

#[interface(package = "Greeter 1")]
pub trait NoPackage {
    async fn greet(&self, name: String) -> Result<String, String>;
}

fn main() {}
