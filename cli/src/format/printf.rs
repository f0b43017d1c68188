//! `printf`, as far as formats of tables need it: `%s %v %q %d %t %x %f %%` with flags, width and precision.

use serde_json::Value;

use super::functions::{kind, text};

/// Widest field.
const MAX_WIDTH: usize = 4_096;

/// One directive: `%-8.3s`.
#[derive(Debug, Default)]
struct Directive {
    left: bool,
    zero: bool,
    plus: bool,
    width: usize,
    precision: Option<usize>,
}

/// Formats as Go's `fmt.Sprintf` does.
///
/// # Errors
/// A width beyond [`MAX_WIDTH`].
pub(super) fn printf(format: &str, values: &[Value]) -> Result<String, String> {
    let (mut out, mut values) = (String::new(), values.iter());
    let mut characters = format.chars().peekable();
    while let Some(character) = characters.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        let directive = Directive::read(&mut characters)?;
        match (characters.next(), &mut values) {
            (None, _) => out.push_str("%!(NOVERB)"),
            (Some('%'), _) => out.push('%'),
            (Some(verb), values) => match values.next() {
                Some(value) => out.push_str(&directive.show(verb, value)),
                None => out.push_str(&format!("%!{verb}(MISSING)")),
            },
        }
    }
    let extra: Vec<_> = values.map(|value| format!("{}={}", kind(value), text(value))).collect();
    if !extra.is_empty() {
        out.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    Ok(out)
}

impl Directive {
    fn read(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Self, String> {
        let mut directive = Self::default();
        while let Some(flag) = characters.next_if(|c| "-0+ #".contains(*c)) {
            directive.left |= flag == '-';
            directive.zero |= flag == '0';
            directive.plus |= flag == '+';
        }
        directive.width = number(characters)?.unwrap_or(0);
        if characters.next_if_eq(&'.').is_some() {
            directive.precision = Some(number(characters)?.unwrap_or(0));
        }
        Ok(directive)
    }

    fn show(&self, verb: char, value: &Value) -> String {
        let text = match (verb, value) {
            ('s' | 'v', value) => self.cut(text(value)),
            ('q', Value::String(value)) => format!("{value:?}"),
            ('t', Value::Bool(value)) => value.to_string(),
            ('d', Value::Number(number)) if !number.is_f64() => self.signed(number.to_string()),
            ('x', Value::Number(number)) if number.is_u64() => format!("{:x}", number.as_u64().unwrap_or(0)),
            ('f', Value::Number(number)) if number.is_f64() => {
                self.signed(format!("{:.*}", self.precision.unwrap_or(6), number.as_f64().unwrap_or(0.0)))
            }
            (verb, value) => format!("%!{verb}({}={})", kind(value), text(value)),
        };
        self.pad(text, value.is_number())
    }

    fn cut(&self, text: String) -> String {
        self.precision.map_or(text.clone(), |most| text.chars().take(most).collect())
    }

    fn signed(&self, text: String) -> String {
        if self.plus && !text.starts_with('-') { format!("+{text}") } else { text }
    }

    fn pad(&self, text: String, number: bool) -> String {
        let missing = self.width.saturating_sub(text.chars().count());
        match text.strip_prefix('-') {
            _ if self.left => text + &" ".repeat(missing),
            Some(digits) if self.zero && number => format!("-{}{digits}", "0".repeat(missing)),
            None if self.zero && number => "0".repeat(missing) + &text,
            _ => " ".repeat(missing) + &text,
        }
    }
}

fn number(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Option<usize>, String> {
    let mut number = None;
    while let Some(digit) = characters.peek().and_then(|c| c.to_digit(10)) {
        characters.next();
        let grown = number.unwrap_or(0_usize) * 10 + digit as usize;
        if grown > MAX_WIDTH {
            return Err(format!("a field is wider than {MAX_WIDTH}"));
        }
        number = Some(grown);
    }
    Ok(number)
}
