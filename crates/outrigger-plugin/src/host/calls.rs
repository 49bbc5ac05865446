//! How calls to the host are made.

/// The largest message in either direction, in bytes.
pub(super) const LARGEST: usize = outrigger_transport::MAX_MESSAGE;

/// One call: `call!(host, filesystem.stat, request)`.
macro_rules! call {
    ($host:expr, $service:ident.$method:ident, $request:expr) => {{
        let mut client = <call!(@client $service)>::new($host.service())
            .max_decoding_message_size($crate::host::calls::LARGEST)
            .max_encoding_message_size($crate::host::calls::LARGEST);
        client
            .$method($request)
            .await
            .map(tonic::Response::into_inner)
            .map_err(|status| {
                let operation = concat!(stringify!($service), ".", stringify!($method));
                $crate::host::HostError::status(operation, status)
            })
    }};
    (@client clock) => { call!(@of clock_client::ClockClient) };
    (@client environment) => { call!(@of environment_client::EnvironmentClient) };
    (@client filesystem) => { call!(@of filesystem_client::FilesystemClient) };
    (@client log) => { call!(@of log_client::LogClient) };
    (@client network) => { call!(@of network_client::NetworkClient) };
    (@client process) => { call!(@of process_client::ProcessClient) };
    (@client session) => { call!(@of session_client::SessionClient) };
    (@of $module:ident::$client:ident) => {
        $crate::proto::host::$module::$client<$crate::host::Service>
    };
}
pub(super) use call;
