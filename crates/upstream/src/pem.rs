//! Errors of PEM files in words that hold nothing of the file: it may be a private key, and the error goes to logs.

use rustls::pki_types::pem::Error;

/// What is wrong with a PEM file.
pub fn pem_problem(error: &Error) -> String {
    match error {
        // These two say what stands there, which may be the whole of a key without line ends.
        Error::MissingSectionEnd { .. } => {
            "a section begins and does not end; are the ends of its lines missing?".to_owned()
        }
        Error::IllegalSectionStart { .. } => "a section begins with a line that makes no sense".to_owned(),
        Error::Base64Decode(_) => "what is between BEGIN and END is not base64".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::KeyPair;
    use rustls::pki_types::PrivateKeyDer;
    use rustls::pki_types::pem::PemObject;

    #[test]
    fn a_key_without_line_ends_is_not_told_to_anybody() {
        let pem = KeyPair::generate().unwrap().serialize_pem();
        let secret = pem.lines().nth(1).unwrap().to_owned();
        for damaged in [pem.replace('\n', ""), pem.replace('\n', "\\n"), pem.replace("-----END", "----END")] {
            let error = PrivateKeyDer::from_pem_slice(damaged.as_bytes()).unwrap_err();
            let problem = pem_problem(&error);
            assert!(!problem.contains(&secret), "{problem}");
            let bytes = secret.bytes().take(8).map(|byte| byte.to_string()).collect::<Vec<_>>().join(", ");
            assert!(!problem.contains(&bytes), "{problem}");
        }
    }
}
