//! Plugins in go-plugin's test mode, as programs of their own.

use std::io::Write;

use anyhow::Result;
use outrigger_plugin::{Serve, serve_for_test};

/// Serves in test mode, says where as a line of JSON, and ends with stdin.
///
/// # Errors
/// It cannot serve, or there is nobody to tell.
///
/// # Panics
/// Inside a tokio runtime.
pub fn serve_until_stdin_ends(plugin: Serve) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let running = serve_for_test(plugin, false).await?;
        let at = serde_json::json!({
            "protocol": running.transport.to_string(),
            "version": running.version.0,
            "network": running.address.network.to_string(),
            "address": running.address.text,
            "pid": running.pid,
            "test": true,
        });
        say(&format!("{at}\n"))?;
        let stdin = tokio::task::spawn_blocking(|| {
            std::io::copy(&mut std::io::stdin(), &mut std::io::sink())
        });
        stdin.await??;
        running.stop().await;
        say("stopped\n")
    })
}

fn say(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}
