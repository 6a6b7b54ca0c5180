//! The abbreviations of time zones that PostgreSQL knows, as `AT TIME ZONE 'PST'` names them.
//!
//! Most are a fixed offset, `PST` also in summer and `EDT` also in winter. Those whose offset has changed over the years stand
//! for the clock of a place.

/// Abbreviations by their minutes east of Greenwich.
const OFFSETS: &[(i32, &str)] = &[
    (-600, "HST TAHT"),
    (-570, "MART"),
    (-540, "AKST GAMT"),
    (-480, "AKDT PST"),
    (-420, "MST PDT"),
    (-360, "CST GALT MDT"),
    (-300, "ACT CDT COT EST PET"),
    (-240, "AMT AST BOT EDT"),
    (-210, "NFT NST"),
    (-180, "ADT BRA BRT CLST GFT PMST PYST UYT WGT"),
    (-150, "NDT"),
    (-120, "BRST FNT PMDT UYST WGST"),
    (-60, "AZOT EGT FNST"),
    (0, "AZOST EGST GMT UCT UT UTC WET Z ZULU"),
    (60, "BST CET MET MEZ WAT WETDST"),
    (120, "BDST CEST CETDST EET IST MEST MESZ METDST SAST"),
    (180, "EAT EEST EETDST FET IDT"),
    (210, "IRT"),
    (240, "MSD MUT RET SCT"),
    (270, "AFT"),
    (300, "MUST MVT PKT TFT TJT UZT"),
    (345, "NPT"),
    (360, "ALMT BDT BTT KGST PKST UZST XJT YEKST"),
    (390, "MMT"),
    (420, "ALMST CXT ICT WAST"),
    (480, "AWST BNT BORT CCT HKT MYT PHT WADT"),
    (525, "ACWST"),
    (540, "AWSST JAYT JST KST PWT ULAST WDT"),
    (570, "ACST CAST"),
    (600, "AEST CHUT DDUT KDT LIGT MPT PGT TRUT YAPT"),
    (630, "ACDT ACSST CADT LHST SADT"),
    (660, "AEDT AESST PONT VUT"),
    (720, "FJT GILT MHT NZST NZT TVT WAKT WFT"),
    (765, "CHAST"),
    (780, "FJST NZDT TOT"),
    (825, "CHADT"),
];

/// Abbreviations by the zone whose clock they mean.
const PLACES: &[(&str, &str)] = &[
    ("Asia/Yerevan", "AMST"),
    ("Asia/Anadyr", "ANAST ANAT"),
    ("America/Argentina/Buenos_Aires", "ARST ART"),
    ("Asia/Baku", "AZST AZT"),
    ("Pacific/Rarotonga", "CKT"),
    ("America/Santiago", "CLT"),
    ("Antarctica/Davis", "DAVT"),
    ("Pacific/Easter", "EASST EAST"),
    ("Atlantic/Stanley", "FKST FKT"),
    ("Asia/Tbilisi", "GEST GET"),
    ("America/Guyana", "GYT"),
    ("Indian/Chagos", "IOT"),
    ("Asia/Irkutsk", "IRKST IRKT"),
    ("Asia/Bishkek", "KGT"),
    ("Pacific/Kosrae", "KOST"),
    ("Asia/Krasnoyarsk", "KRAST KRAT"),
    ("Australia/Lord_Howe", "LHDT"),
    ("Pacific/Kiritimati", "LINT"),
    ("Asia/Colombo", "LKT"),
    ("Asia/Magadan", "MAGST MAGT"),
    ("Antarctica/Mawson", "MAWT"),
    ("Europe/Moscow", "MSK"),
    ("Asia/Novosibirsk", "NOVST NOVT"),
    ("Pacific/Niue", "NUT"),
    ("Asia/Omsk", "OMSST OMST"),
    ("Asia/Kamchatka", "PETST PETT"),
    ("America/Asuncion", "PYT"),
    ("Asia/Singapore", "SGT"),
    ("Pacific/Fakaofo", "TKT"),
    ("Asia/Ashgabat", "TMT"),
    ("Asia/Ulaanbaatar", "ULAT"),
    ("America/Caracas", "VET"),
    ("Asia/Vladivostok", "VLAST VLAT"),
    ("Europe/Volgograd", "VOLT"),
    ("Asia/Yakutsk", "YAKST YAKT"),
    ("Asia/Yekaterinburg", "YEKT"),
];

/// The name of the zone that an abbreviation means, in any case: an offset as ISO writes it, or a place.
pub(super) fn zone_of_abbreviation(name: &str) -> Option<String> {
    let among = |abbreviations: &str| abbreviations.split(' ').any(|known| known.eq_ignore_ascii_case(name));
    let place = || PLACES.iter().find(|(_, abbreviations)| among(abbreviations)).map(|(zone, _)| (*zone).to_owned());
    match OFFSETS.iter().find(|(_, abbreviations)| among(abbreviations)) {
        Some((minutes, _)) => {
            let sign = if *minutes < 0 { '-' } else { '+' };
            let minutes = minutes.abs();
            Some(format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60))
        }
        None => place(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn abbreviations_are_offsets_or_places() {
        for (name, expected) in [
            ("PST", Some("-08:00")),
            ("edt", Some("-04:00")),
            ("NST", Some("-03:30")),
            ("CEST", Some("+02:00")),
            ("utc", Some("+00:00")),
            ("MSK", Some("Europe/Moscow")),
            ("Nope", None),
            ("", None),
        ] {
            assert_eq!(zone_of_abbreviation(name).as_deref(), expected, "{name}");
        }
    }
}
