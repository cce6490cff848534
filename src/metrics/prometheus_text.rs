//! The Prometheus text format 0.0.4, made of `OpenMetrics`, which is all that the metrics library writes.

/// Returns an `OpenMetrics` text in the Prometheus text format: a counter's family has the name of its samples, and there are no
/// units and no end mark.
pub(super) fn of_openmetrics(text: &str) -> String {
    let mut converted = String::with_capacity(text.len());
    let mut help = None;
    for line in text.lines() {
        if let Some(family) = line.strip_prefix("# HELP ") {
            help = family.split_once(' ').map(|(_, help)| help);
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|family| family.split_once(' '))
        {
            let suffix = if kind == "counter" { "_total" } else { "" };
            let help = help.take().unwrap_or_default();
            converted += &format!("# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}\n");
        } else if !line.starts_with('#') {
            converted += line;
            converted.push('\n');
        }
    }
    converted
}

#[cfg(test)]
mod tests {
    #[test]
    fn families_are_named_as_their_samples() {
        let openmetrics = "# HELP a_bytes Bytes.\n# TYPE a_bytes counter\n# UNIT a_bytes bytes\na_bytes_total 1\n\
            # HELP b B of the hub.\n# TYPE b gauge\nb{kind=\"# x\"} 2\n# EOF\n";
        let text = "# HELP a_bytes_total Bytes.\n# TYPE a_bytes_total counter\na_bytes_total 1\n\
            # HELP b B of the hub.\n# TYPE b gauge\nb{kind=\"# x\"} 2\n";
        assert_eq!(super::of_openmetrics(openmetrics), text);
    }
}
