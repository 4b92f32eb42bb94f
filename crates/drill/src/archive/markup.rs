//! Text inside XML and HTML.

use std::fmt;

/// Text that is nothing but text wherever it is put: between tags, and between quotes.
pub(super) struct Escaped<T>(pub(super) T);

impl<T: AsRef<str>> fmt::Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        for c in self.0.as_ref().chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                '\t' | '\n' => f.write_char(c)?,
                // XML has no way to write these.
                '\u{fffe}' | '\u{ffff}' => f.write_char('\u{fffd}')?,
                c if c.is_control() => f.write_char('\u{fffd}')?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_text_is_markup() {
        let hostile = "</td><script>\"it's\" & \u{0}\u{1b}[1m\u{ffff}é\n";
        let expected = "&lt;/td&gt;&lt;script&gt;&quot;it&#39;s&quot; &amp; \u{fffd}\u{fffd}[1m\u{fffd}é\n";
        assert_eq!(Escaped(hostile).to_string(), expected);
    }
}
