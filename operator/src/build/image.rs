//! Which image runs.

use crate::crd::ImageSpec;

/// The image: the operator's own, with whatever the spec says otherwise.
pub fn image(spec: &ImageSpec, default: &str) -> String {
    let (own_repository, own_version) = split(default);
    let repository = spec.repository.as_deref().unwrap_or(own_repository);
    match (&spec.digest, &spec.tag) {
        (Some(digest), _) => format!("{repository}@{digest}"),
        (None, Some(tag)) => format!("{repository}:{tag}"),
        // A digest names content; another repository has the same content only under the same tag.
        (None, None) if spec.repository.is_some() && own_version.starts_with('@') => {
            format!("{repository}:{}", env!("CARGO_PKG_VERSION"))
        }
        (None, None) => format!("{repository}{own_version}"),
    }
}

/// Repository, and `:tag` or `@digest`.
fn split(image: &str) -> (&str, &str) {
    if let Some(at) = image.find('@') {
        let (name, digest) = image.split_at(at);
        return (split(name).0, digest);
    }
    let path = image.rfind('/').map_or(0, |slash| slash + 1);
    match image[path..].find(':') {
        Some(colon) => image.split_at(path + colon),
        None => (image, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "localhost:5000/dfs:1.2.3";

    fn spec(repository: &str, tag: &str, digest: &str) -> ImageSpec {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        ImageSpec {
            repository: some(repository),
            tag: some(tag),
            digest: some(digest),
            ..ImageSpec::default()
        }
    }

    #[test]
    fn what_the_spec_leaves_out_is_the_operators_own() {
        for (repository, tag, digest, own, expected) in [
            ("", "", "", OWN, OWN),
            ("", "2.0", "", OWN, "localhost:5000/dfs:2.0"),
            ("", "", "sha256:ab", OWN, "localhost:5000/dfs@sha256:ab"),
            ("r.io:1/x", "", "", OWN, "r.io:1/x:1.2.3"),
            ("r.io:1/x", "7", "", OWN, "r.io:1/x:7"),
            ("", "7", "", "dfs:1@sha256:cd", "dfs:7"),
            ("", "", "", "dfs:1@sha256:cd", "dfs@sha256:cd"),
            (
                "x",
                "",
                "",
                "dfs@sha256:cd",
                concat!("x:", env!("CARGO_PKG_VERSION")),
            ),
        ] {
            assert_eq!(image(&spec(repository, tag, digest), own), expected);
        }
    }
}
