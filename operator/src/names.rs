//! Names of a cluster's objects that deciders need. They are what users type: see `docs/operator.md`.

/// StatefulSet of the tracker.
pub fn tracker_set(cluster: &str) -> String {
    format!("{cluster}-tracker")
}

/// StatefulSet of the datanodes, and the start of their pods' names.
pub fn datanode_set(cluster: &str) -> String {
    format!("{cluster}-datanode")
}

/// Deployment of the gateways.
pub fn gateway(cluster: &str) -> String {
    format!("{cluster}-gateway")
}

/// Secret that holds the cluster token.
pub fn token_secret(cluster: &str) -> String {
    format!("{cluster}-token")
}

/// Pod with an ordinal.
pub fn pod(set: &str, ordinal: i32) -> String {
    format!("{set}-{ordinal}")
}

/// Claim of a StatefulSet's pod.
pub fn claim(pod: &str) -> String {
    format!("data-{pod}")
}

/// The ordinal in a pod's name, if it is one of this StatefulSet.
pub fn ordinal(set: &str, pod: &str) -> Option<i32> {
    let digits = pod.strip_prefix(set)?.strip_prefix('-')?;
    let ordinal: i32 = digits.parse().ok()?;
    // `+1` and `01` are numbers, and no names that a StatefulSet gives.
    (ordinal.to_string() == digits && ordinal >= 0).then_some(ordinal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinal_is_read_from_exactly_the_names_a_stateful_set_gives() {
        assert_eq!(ordinal("a-datanode", "a-datanode-0"), Some(0));
        assert_eq!(ordinal("a-datanode", "a-datanode-12"), Some(12));
        for other in [
            "a-datanode",
            "a-datanode-",
            "a-datanode-01",
            "a-datanode-+1",
            "a-datanode--1",
            "b-datanode-0",
            "a-datanode-0-x",
        ] {
            assert_eq!(ordinal("a-datanode", other), None, "{other}");
        }
    }
}
