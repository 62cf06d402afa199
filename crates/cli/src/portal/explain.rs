//! `portal explain` for people: the answer, then what decides.

use std::fmt::Write as _;

use connlib_portal::admin::{ExplainedPolicy, Explanation, Verdict};
use connlib_portal::derive::ingest::iso_8601;

/// Whether somebody may reach something, and why.
pub(super) fn text(explanation: &Explanation) -> String {
    let Explanation {
        actor, resource, ..
    } = explanation;
    let may = match explanation.allowed {
        true => "may",
        false => "may not",
    };
    let mut text = format!("{actor} {may} reach {resource} now\n");
    // Writing to a text can't fail.
    for reason in &explanation.reasons {
        let _ = writeln!(text, "  {reason}");
    }
    for verdict in &explanation.verdicts {
        one(&mut text, verdict, explanation.verdicts.len() > 1);
    }
    if explanation.allowed {
        let gateways = match explanation.gateways.is_empty() {
            true => "no gateway that could give access is connected".to_owned(),
            false => format!("gateways: {}", explanation.gateways.join(", ")),
        };
        let _ = writeln!(text, "  {gateways}");
    }

    text
}

/// What is decided for one client.
fn one(text: &mut String, verdict: &Verdict, is_one_of_many: bool) {
    let name = verdict.client_name.as_deref().unwrap_or("any client");
    let state = match verdict.online {
        true => "connected",
        false => "not connected",
    };
    let from = verdict.remote_ip.map(|address| match verdict.country {
        Some(country) => format!(", from {address} in {country}"),
        None => format!(", from {address}"),
    });
    let verified = match verdict.verified {
        true => ", verified",
        false => "",
    };
    let may = match (is_one_of_many, verdict.allowed) {
        (false, _) => "",
        (true, true) => ": may",
        (true, false) => ": may not",
    };
    let from = from.unwrap_or_default();
    let _ = writeln!(text, "  {name} ({state}{from}{verified}){may}");
    if let Some(policy) = &verdict.decided_by {
        let _ = writeln!(
            text,
            "    by the policy {}{}",
            told(policy),
            until(verdict.until)
        );
    }
    if !verdict.unfit_gateways.is_empty() {
        let gateways = verdict.unfit_gateways.join(", ");
        let _ = writeln!(
            text,
            "    of another version than it gets on with: {gateways}"
        );
    }
    for policy in &verdict.others {
        let verb = match policy.holds {
            true => "would let it in too",
            false => "does not",
        };
        let _ = writeln!(text, "    the policy {} {verb}", told(policy));
        for failed in &policy.failed {
            let _ = writeln!(text, "      {failed}");
        }
    }
}

fn told(policy: &ExplainedPolicy) -> String {
    match policy.conditions.is_empty() {
        true => format!("of the group {}", policy.group),
        false => format!(
            "of the group {} ({})",
            policy.group,
            policy.conditions.join("; ")
        ),
    }
}

fn until(end: Option<u64>) -> String {
    end.map_or_else(String::new, |end| format!(", until {}", iso_8601(end)))
}
