"""Reasons for a missing token, and problems of the client secret or key that requests it."""

from typing import Final

TABLE: Final = {
    "holds more than two lines: one secret, or two for the overlap": (
        "больше двух строк: нужен один секрет или, на время замены, два",
        "ikki qatordan ko‘p: bitta sir kerak, almashtirish vaqtida ikkita",
    ),
    "holds more than two private keys: one, or two for the overlap": (
        "больше двух закрытых ключей: нужен один или, на время замены, два",
        "ikkitadan ko‘p yopiq kalit: bittasi kerak, almashtirish vaqtida ikkita",
    ),
    "with an error code that is not OAuth's": (
        "с кодом ошибки не из OAuth",
        "OAuth da yo‘q xato kodi bilan",
    ),
    "a firewall in front, or a wrong address": (
        "перед ним межсетевой экран, или адрес неверен",
        "oldida tarmoq ekrani bor yoki manzil noto‘g‘ri",
    ),
    "check sso.token_url": ("проверьте sso.token_url", "sso.token_url ni tekshiring"),
    "{not_the_sso}; check sso.token_url, and if it is right try again later": (
        "{not_the_sso}; проверьте sso.token_url и, если он верен, попробуйте позже",
        "{not_the_sso}; sso.token_url ni tekshiring, to‘g‘ri bo‘lsa, keyinroq urinib ko‘ring",
    ),
    (
        "check client_id and client secret of credentials.{name}, or which public key the SSO knows"
    ): (
        (
            "проверьте client_id и секрет в credentials.{name} или то, какой открытый ключ "
            "знает сервис входа"
        ),
        (
            "credentials.{name} dagi client_id va sirni yoki kirish xizmati qaysi ochiq "
            "kalitni bilishini tekshiring"
        ),
    ),
    "set credentials.{name}.scope to null, or to a scope you were given": (
        "укажите в credentials.{name}.scope null или область доступа, которую вам дали",
        "credentials.{name}.scope ga null yoki sizga berilgan ruxsat doirasini yozing",
    ),
    ("check the secret; or the client may not use client_credentials: ask the SSO's operator"): (
        (
            "проверьте секрет; если он верен, клиенту, возможно, не разрешён "
            "client_credentials: спросите администратора сервиса входа"
        ),
        (
            "sirni tekshiring; u to‘g‘ri bo‘lsa, mijozga client_credentials ruxsat etilmagan "
            "bo‘lishi mumkin: kirish xizmati administratoridan so‘rang"
        ),
    ),
    "is sso.token_url the token endpoint?": (
        "sso.token_url — это адрес выдачи токенов?",
        "sso.token_url token beriladigan manzilmi?",
    ),
    "{url} did not answer within {timeout:g} s": (
        "{url} не ответил за {timeout:g} с",
        "{url} {timeout:g} soniyada javob bermadi",
    ),
    "check its spelling": ("проверьте написание", "yozilishini tekshiring"),
    "no connection to {url}: nothing listens there, or a firewall is between": (
        "{url} недоступен: там никто не слушает или мешает межсетевой экран",
        "{url} bilan aloqa yo‘q: u yerda hech kim tinglamaydi yoki orada tarmoq ekrani bor",
    ),
    "the certificate of {url} is not trusted": (
        "{url}: нет доверия к сертификату",
        "{url} sertifikati ishonchli emas",
    ),
    "its CA goes into sso.ca_file": (
        "сертификат его центра сертификации укажите в sso.ca_file",
        "uning sertifikat markazi sertifikatini sso.ca_file da ko‘rsating",
    ),
    "the certificate of {url} belongs to another host name": (
        "{url}: сертификат выдан другому узлу",
        "{url} sertifikati boshqa xostga berilgan",
    ),
    "correct sso.token_url, never work around this": (
        "исправьте sso.token_url; проверку никогда не отключайте",
        "sso.token_url ni tuzating; tekshiruvni hech qachon o‘chirmang",
    ),
    "the certificate of {url} is not valid at this time": (
        "{url}: сертификат сейчас не действует",
        "{url} sertifikati hozir amal qilmaydi",
    ),
    "check this machine's clock first": (
        "сначала проверьте часы этого компьютера",
        "avval bu kompyuter soatini tekshiring",
    ),
    "{url} does not speak TLS": ("{url} не отвечает по TLS", "{url} TLS bilan ishlamaydi"),
    "check port and https:// in sso.token_url": (
        "проверьте порт и https:// в sso.token_url",
        "sso.token_url dagi port va https:// ni tekshiring",
    ),
    "no secure connection to {url}: TLS failed": (
        "{url}: нет защищённого соединения, сбой TLS",
        "{url} bilan himoyalangan aloqa yo‘q: TLS nosozligi",
    ),
    "the proxy in sso.proxy_url gave no connection to {url}": (
        "{url}: прокси из sso.proxy_url не установил соединение",
        "sso.proxy_url dagi proksi {url} ga ulanib bermadi",
    ),
    "the connection to {url} broke before the answer was complete": (
        "{url}: соединение прервалось до конца ответа",
        "{url} bilan aloqa javob tugamasdan uzildi",
    ),
    "{url} answered something that is not HTTP": (
        "{url} ответил не по протоколу HTTP",
        "{url} javobi HTTP emas",
    ),
    "{url} answered with a redirect, which is never followed": (
        "{url} ответил перенаправлением, а шлюз за ним не следует",
        "{url} boshqa manzilga yo‘naltirdi, shlyuz esa unga ergashmaydi",
    ),
    "correct sso.token_url": ("исправьте sso.token_url", "sso.token_url ni tuzating"),
    "{way} gave no token ({told})": (
        "{way} не выдал токен ({told})",
        "{way} token bermadi ({told})",
    ),
    "the SSO at {url}": ("сервис входа {url}", "kirish xizmati {url}"),
    "the SSO": ("сервис входа", "kirish xizmati"),
    "check credentials.{name} and sso.token_url": (
        "проверьте credentials.{name} и sso.token_url",
        "credentials.{name} va sso.token_url ni tekshiring",
    ),
    "the SSO refused ({told})": (
        "сервис входа отказал ({told})",
        "kirish xizmati rad etdi ({told})",
    ),
    "{happened}; it says “{description}”": (
        "{happened}; он сообщает: «{description}»",
        "{happened}; u shunday deydi: “{description}”",
    ),
    "try again in {time}": (
        "попробуйте снова через {time}",
        "{time} dan keyin qayta urinib ko‘ring",
    ),
    "the SSO has had too many requests": (
        "к сервису входа слишком много запросов",
        "kirish xizmatiga juda ko‘p so‘rov keldi",
    ),
    "the SSO's": ("сервиса входа", "kirish xizmatining"),
    "a web page": ("веб-страницу", "veb-sahifa"),
    "an answer that is not OAuth's": ("ответ не по OAuth", "OAuth ga mos bo‘lmagan javob"),
    "{space}(status {status})": ("{space}(статус {status})", "{space}(status {status})"),
    "{way} gave no token but {what}{status}": (
        "{way} вместо токена прислал {what}{status}",
        "{way} token o‘rniga {what}{status} yubordi",
    ),
    "{way} gave no token: {cause}": (
        "{way} не выдал токен: {cause}",
        "{way} token bermadi: {cause}",
    ),
    "give an RSA key of at least 2048 bits, or an EC key of the curve P-384": (
        "нужен ключ RSA не короче 2048 бит или ключ EC на кривой P-384",
        "kamida 2048 bitli RSA kaliti yoki P-384 egri chizig‘idagi EC kaliti kerak",
    ),
    "is neither an RSA nor an EC key; {kinds}": (
        "это не ключ RSA и не ключ EC; {kinds}",
        "bu RSA kaliti ham, EC kaliti ham emas; {kinds}",
    ),
    "is neither PEM nor a JWK": ("это не PEM и не JWK", "bu PEM ham, JWK ham emas"),
    "a certificate": ("сертификат", "sertifikat"),
    "a public key": ("открытый ключ", "ochiq kalit"),
    "holds {what}; the private key is needed": (
        "внутри {what}; нужен закрытый ключ",
        "ichida {what}; yopiq kalit kerak",
    ),
    "is encrypted; store it without a passphrase, readable for the gateway only": (
        "зашифрован; храните его без пароля, чтобы читал только шлюз",
        "shifrlangan; uni parolsiz, faqat shlyuz o‘qiy oladigan qilib saqlang",
    ),
    "is in OpenSSH's own format; convert it with ssh-keygen -p -m PEM": (
        "в собственном формате OpenSSH; преобразуйте его: ssh-keygen -p -m PEM",
        "OpenSSH ning o‘z formatida; uni o‘zgartiring: ssh-keygen -p -m PEM",
    ),
    "is no JWK set: `keys` must be a list of JWKs": (
        "это не набор JWK: `keys` должно быть списком JWK",
        "bu JWK to‘plami emas: `keys` JWK lar ro‘yxati bo‘lishi kerak",
    ),
    "only public keys": ("только открытые ключи", "faqat ochiq kalitlar"),
    "no key": ("нет ключа", "kalit yo‘q"),
    "a shared secret": ("общий секрет", "umumiy sir"),
    "is a JWK whose `alg` is not {algorithm}, which this kind signs by": (
        "это JWK, у которого `alg` не {algorithm}, а ключ этого вида подписывает только так",
        "bu JWK ning `alg` qiymati {algorithm} emas, bunday kalit esa faqat u bilan imzolaydi",
    ),
    "is a JWK that its `use` or `key_ops` keep from signing": (
        "это JWK, которому `use` или `key_ops` запрещают подписывать",
        "bu JWK ga `use` yoki `key_ops` imzolashni taqiqlaydi",
    ),
    "is an RSA key of {bits} bits; {kinds}": (
        "это ключ RSA длиной {bits} бит; {kinds}",
        "bu {bits} bitli RSA kaliti; {kinds}",
    ),
    "{space}of the curve {curve}": ("{space}на кривой {curve}", "{space}({curve} egri chizig‘ida)"),
    "is an EC key{named}, which ES384 cannot use; {kinds}": (
        "это ключ EC{named}, с ним ES384 не работает; {kinds}",
        "bu EC kaliti{named}, ES384 u bilan ishlamaydi; {kinds}",
    ),
    "has no private part": ("нет закрытой части", "yopiq qismi yo‘q"),
    "holds a PEM block that is broken or of no known kind": (
        "содержит испорченный или неизвестный блок PEM",
        "buzilgan yoki noma’lum PEM bloki bor",
    ),
    "is not valid JSON": ("это не JSON", "bu JSON emas"),
    "is a JWK with missing or broken members": (
        "это JWK, где чего-то не хватает или что-то испорчено",
        "bu JWK da nimadir yetishmaydi yoki buzilgan",
    ),
}
