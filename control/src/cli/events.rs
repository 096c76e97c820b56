//! `vxlane events`: what happened, a line each.

use std::time::{Duration, UNIX_EPOCH};

use clap::Args;
use hyper::{Method, StatusCode, body::Bytes};
use serde_json::Value;

use super::{Output, Question};
use crate::api::client::ClientError;

/// `vxlane events`
#[derive(Clone, Debug, Args)]
pub struct EventsArgs {
    /// Go on with what is yet to come, until interrupted
    #[arg(long, short)]
    pub follow: bool,
    /// Only events with a higher number
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub after: u64,
}

/// Prints events as they come.
pub(super) async fn answer(ask: &Question<'_>, args: &EventsArgs, out: Output<'_>) -> Result<(), ClientError> {
    let path = format!("/v1/events?after={}&follow={}", args.after, args.follow);
    let mut answer = ask.open(Method::GET, &path, Bytes::new()).await?;
    let mut rest = Vec::new();
    while let Some(part) = answer.next().await? {
        rest.extend_from_slice(&part);
        let whole = rest.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let lines: Vec<u8> = rest.drain(..whole).collect();
        let text = if ask.cli.json { String::from_utf8_lossy(&lines).into_owned() } else { render(&lines)? };
        super::print(out, &text)?;
    }
    Ok(())
}

fn render(lines: &[u8]) -> Result<String, ClientError> {
    let lines = lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    let understood = lines.map(|line| {
        let event = serde_json::from_slice(line);
        event.map(|event| line_of(&event)).map_err(|source| ClientError::Answer { status: StatusCode::OK, source })
    });
    understood.collect()
}

/// Time, name, and all that is known: also of events that this version has not heard of.
fn line_of(event: &Value) -> String {
    let time = UNIX_EPOCH + Duration::from_millis(event["time"].as_u64().unwrap_or(0));
    let name = event["event"].as_str().unwrap_or("unknown");
    let mut line = format!("{} {name}", humantime::format_rfc3339_millis(time));
    let fields = event.as_object().into_iter().flatten();
    let mut fields: Vec<_> = fields.filter(|(key, _)| !["sequence", "time", "event"].contains(&key.as_str())).collect();
    fields.sort_by_key(|&(key, _)| (key != "network", key));
    for (key, value) in fields {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        line.push_str(&format!(" {key} {value}"));
    }
    line + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line_of_words_though_it_is_not_known() {
        let lines = br#"{"sequence":1,"time":1000,"event":"network_created","network":"blue","vni":5000}
{"sequence":2,"time":1500,"event":"sun_rose","place":"here"}
"#;
        let expected = "1970-01-01T00:00:01.000Z network_created network blue vni 5000\n\
                        1970-01-01T00:00:01.500Z sun_rose place here\n";
        assert_eq!(render(lines).unwrap(), expected);
    }
}
