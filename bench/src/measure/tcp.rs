//! TCP throughput by iperf3, from left to right.

use std::process::Stdio;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use vxlane_tests::LabError;
use vxlane_tests::process;

use super::Turn;
use crate::machine::Meter;
use crate::results::{Metric, Section};

impl Turn<'_> {
    pub(super) fn tcp(&mut self, section: Section, streams: u32) -> Result<(), LabError> {
        let meter = Meter::start(self.bed.processes())?;
        let rate = self.iperf(streams)?;
        let case = if streams == 1 { "1 stream".to_owned() } else { format!("{streams} streams") };
        self.record(section, &case, Metric::Throughput, rate / 1e9, meter.stop()?.stolen);
        Ok(())
    }

    /// Bits per second that arrived.
    fn iperf(&self, streams: u32) -> Result<f64, LabError> {
        let (from, to) = (self.bed.left.ns(), &self.bed.right);
        let address = to.ipv4().to_string();
        let mut server = to.ns().command("iperf3");
        server.args(["--server", "--one-off", "--bind", &address]).stdout(Stdio::null()).stderr(Stdio::null());
        let _server = to.ns().spawn(&mut server)?;
        // iperf3 counts whole seconds.
        let amount = match self.plan.tcp.as_secs() {
            0 => ["--bytes".to_owned(), FEW_BYTES.to_owned()],
            seconds => ["--time".to_owned(), seconds.to_string()],
        };
        let mut last = None;
        for _ in 0..CONNECT_TRIES {
            thread::sleep(CONNECT_PAUSE);
            let mut client = from.command("iperf3");
            client.args(["--client", &address, "--json", "--connect-timeout", "1000"]);
            client.args(&amount).args(["--parallel", &streams.to_string()]);
            match process::stdout(&mut client) {
                Ok(text) => return received(&text),
                // The server may not listen yet.
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or(LabError::Unfit { what: "iperf3 was never tried", text: address }))
    }
}

/// Bits per second that the receiver counted, from what iperf3 prints.
fn received(text: &str) -> Result<f64, LabError> {
    let unfit = || LabError::Unfit { what: "iperf3 did not say what was received", text: text.to_owned() };
    let report: Value = serde_json::from_str(text).map_err(|_| unfit())?;
    report.pointer("/end/sum_received/bits_per_second").and_then(Value::as_f64).ok_or_else(unfit)
}

/// Numbers of streams.
pub(super) const STREAMS: [u32; 2] = [1, 4];
/// What a stream of no length to speak of transfers.
const FEW_BYTES: &str = "4M";
const CONNECT_TRIES: u32 = 20;
const CONNECT_PAUSE: Duration = Duration::from_millis(50);
