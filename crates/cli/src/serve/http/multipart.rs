//! `multipart/form-data`, of a body that is in memory already: one part is looked for, so no stream is needed.

/// A part's headers, in lower case, and its content.
type Part<'a> = (String, &'a [u8]);

/// The picture of a form: the first part that is a file, or else the first that is called `image`, `file` or `data`.
///
/// # Errors
///
/// There is no boundary, the parts do not end, or none of them is a picture.
pub(super) fn file<'a>(content_type: &str, body: &'a [u8]) -> Result<&'a [u8], &'static str> {
    let boundary =
        boundary(content_type).ok_or("the content type names no boundary of 1 to 70 characters")?;
    let parts = parts(body, &boundary)?;
    let is_file = |(headers, _): &&Part| headers.contains("filename=") || headers.contains("filename*=");
    let is_named = |(headers, _): &&Part| {
        ["image", "file", "data"].iter().any(|name| {
            headers.contains(&format!(" name=\"{name}\"")) || headers.contains(&format!(" name={name}\r"))
        })
    };
    let found = parts.iter().find(is_file).or_else(|| parts.iter().find(is_named));
    found.map(|(_, content)| *content).ok_or("the form has no file, and no field 'image'")
}

/// The delimiter: two hyphens and the boundary.
fn boundary(content_type: &str) -> Option<Vec<u8>> {
    let value = content_type.split(';').skip(1).find_map(|parameter| {
        let (key, value) = parameter.trim().split_once('=')?;
        key.eq_ignore_ascii_case("boundary").then_some(value.trim())
    })?;
    let value = value.strip_prefix('"').map_or(value, |rest| rest.strip_suffix('"').unwrap_or(rest));
    (1..=70).contains(&value.len()).then(|| format!("--{value}").into_bytes())
}

/// A form of more parts than this is none that a person fills in.
const MOST_PARTS: usize = 64;

fn parts<'a>(body: &'a [u8], delimiter: &[u8]) -> Result<Vec<Part<'a>>, &'static str> {
    let torn = "the form is cut off";
    let mut rest = match body.strip_prefix(delimiter) {
        Some(rest) => rest,
        None => &body[find(body, delimiter).ok_or("the boundary is not in the body")?.1..],
    };
    let mut parts = Vec::new();
    while !rest.starts_with(b"--") {
        let start = rest.iter().position(|&byte| byte == b'\n').ok_or(torn)?;
        // From the line end on, so that a part without headers has an empty line too.
        rest = &rest[start.saturating_sub(1)..];
        let head = rest.windows(4).take(1 << 14).position(|four| four == b"\r\n\r\n").ok_or(torn)?;
        let headers = String::from_utf8_lossy(&rest[..head + 2]).to_ascii_lowercase();
        let content = &rest[head + 4..];
        // The line end before a delimiter belongs to it; an empty part's is the one that ends its headers.
        let (end, next) = match content.strip_prefix(delimiter) {
            Some(_) => (0, delimiter.len()),
            None => find(content, delimiter).ok_or(torn)?,
        };
        parts.push((headers, &content[..end]));
        if parts.len() > MOST_PARTS {
            return Err("the form has too many parts");
        }
        rest = &content[next..];
    }
    Ok(parts)
}

/// Where `\r\n` and the delimiter start, and what follows them.
fn find(bytes: &[u8], delimiter: &[u8]) -> Option<(usize, usize)> {
    let mut at = 0;
    loop {
        at += bytes[at..].iter().position(|&byte| byte == b'\r')?;
        if bytes[at + 1..].strip_prefix(b"\n").is_some_and(|rest| rest.starts_with(delimiter)) {
            return Some((at, at + 2 + delimiter.len()));
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=AaB03x";

    #[test]
    fn the_file_is_found_among_fields() {
        let body = b"--AaB03x\r\nContent-Disposition: form-data; name=\"note\"\r\n\r\nhello\r\n--AaB03x\r\n\
            Content-Disposition: form-data; name=\"x\"; filename=\"a.png\"\r\nContent-Type: image/png\r\n\r\n\
            \r\n--AaB03\r\nbytes\r\n--AaB03x--\r\n";
        assert_eq!(file(TYPE, body), Ok(&b"\r\n--AaB03\r\nbytes"[..]));
        let quoted = "multipart/form-data; charset=utf-8; Boundary=\"AaB03x\"";
        assert_eq!(file(quoted, body), file(TYPE, body));
    }

    #[test]
    fn a_field_called_image_is_enough() {
        let body = b"preamble\r\n--AaB03x\r\nContent-Disposition: form-data; name=\"image\"\r\n\r\nxyz\r\n--AaB03x--";
        assert_eq!(file(TYPE, body), Ok(&b"xyz"[..]));
        let empty = b"--AaB03x\r\nContent-Disposition: form-data; name=\"image\"\r\n\r\n\r\n--AaB03x--";
        assert_eq!(file(TYPE, empty), Ok(&b""[..]));
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_answered() {
        let body = b"--AaB03x\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a\"\r\n\r\nxyz\r\n--AaB03x--\r\n";
        for end in 0..body.len() - 4 {
            assert!(file(TYPE, &body[..end]).is_err(), "{end}");
        }
        for at in 0..body.len() {
            for byte in [0, b'\r', b'\n', b'-', 255] {
                let mut changed = body.to_vec();
                changed[at] = byte;
                let _ = file(TYPE, &changed);
            }
        }
        for wrong in
            ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=\""]
        {
            assert!(file(wrong, body).is_err(), "{wrong}");
        }
    }
}
