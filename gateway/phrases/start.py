"""Why there is no token, and why a gateway does not start."""

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
    "cannot be made": ("не удаётся создать", "yaratib bo‘lmaydi"),
    "needs the extra `outbox`: pip install 'dhp-gateway[outbox]'": (
        "нужно дополнение `outbox`: pip install 'dhp-gateway[outbox]'",
        "`outbox` qo‘shimchasi kerak: pip install 'dhp-gateway[outbox]'",
    ),
    "is missing; {make_key}": ("не задано; {make_key}", "berilmagan; {make_key}"),
    "{location} cannot be opened: {trouble}": (
        "{location} не открывается: {trouble}",
        "{location} ochilmaydi: {trouble}",
    ),
    "holds no certificates": ("не содержит сертификатов", "sertifikat yo‘q"),
    "is in use with another key or by another version": (
        "используется с другим ключом или другой версией",
        "boshqa kalit bilan yoki boshqa versiyada ishlatilmoqda",
    ),
    "was written by another version (schema {schema})": (
        "записано другой версией (схема {schema})",
        "boshqa versiya yozgan (sxema {schema})",
    ),
    "holds entries that were encrypted with another key": (
        "содержит записи, зашифрованные другим ключом",
        "boshqa kalit bilan shifrlangan yozuvlar bor",
    ),
    "aiohttp is installed without its C parser; install its binary wheel": (
        "aiohttp установлен без своего разборщика на C; установите его готовый пакет wheel",
        "aiohttp C dagi tahlilchisiz o‘rnatilgan; uning tayyor wheel paketini o‘rnating",
    ),
    "the gateway is shutting down": ("шлюз завершает работу", "shlyuz ishini tugatmoqda"),
    "is no audit file of this gateway; move it away, or give another path": (
        "это не файл аудита этого шлюза; переместите его или укажите другой путь",
        "bu shu shlyuzning audit fayli emas; uni ko‘chiring yoki boshqa yo‘l bering",
    ),
    "{path}: another gateway writes there": (
        "{path}: туда пишет другой шлюз",
        "{path}: unga boshqa shlyuz yozmoqda",
    ),
    "cannot be written: {why}": ("нельзя записать: {why}", "yozib bo‘lmaydi: {why}"),
    "the key is encrypted; store it without a passphrase, readable for the gateway only": (
        "ключ зашифрован; храните его без пароля, чтобы читал только шлюз",
        "kalit shifrlangan; uni parolsiz, faqat shlyuz o‘qiy oladigan qilib saqlang",
    ),
    "not a PEM certificate chain and its private key": (
        "это не цепочка сертификатов PEM с её закрытым ключом",
        "bu PEM sertifikatlar zanjiri va uning yopiq kaliti emas",
    ),
    "the key does not belong to the certificate": (
        "ключ не подходит к сертификату",
        "kalit sertifikatga mos emas",
    ),
    "{cert_file} with key {key_file}: {trouble}": (
        "{cert_file} с ключом {key_file}: {trouble}",
        "{cert_file}, kaliti {key_file}: {trouble}",
    ),
    "{path}: holds no certificates (PEM)": (
        "{path}: нет сертификатов (PEM)",
        "{path}: sertifikat yo‘q (PEM)",
    ),
    "give each caller its own, or nobody can tell which of them called": (
        "дайте каждой системе своё, иначе не узнать, кто из них обращался",
        (
            "har bir tizimga o‘zinikini bering, aks holda qaysi biri murojaat qilganini bilib "
            "bo‘lmaydi"
        ),
    ),
    "is the same as {other}; {hint}": (
        "совпадает с {other}; {hint}",
        "{other} bilan bir xil; {hint}",
    ),
    "cannot change while the gateway runs; restart it": (
        "не меняется во время работы шлюза; перезапустите его",
        "shlyuz ishlayotganda o‘zgarmaydi; uni qayta ishga tushiring",
    ),
    "stdout is closed; give it a destination, or choose another sink": (
        "stdout закрыт; направьте его куда-нибудь или выберите другой audit.sink",
        "stdout yopiq; uni biror joyga yo‘naltiring yoki boshqa audit.sink tanlang",
    ),
    "needs the extra `redis`: pip install 'dhp-gateway[redis]'": (
        "нужно дополнение `redis`: pip install 'dhp-gateway[redis]'",
        "`redis` qo‘shimchasi kerak: pip install 'dhp-gateway[redis]'",
    ),
    "{key}: cannot listen on {address}: {why}; set {key} or {variable}": (
        "{key}: не удаётся слушать {address}: {why}; измените {key} или {variable}",
        (
            "{key}: {address} manzilini tinglab bo‘lmaydi: {why}; {key} yoki {variable} ni "
            "o‘zgartiring"
        ),
    ),
    "another process listens there": (
        "там слушает другой процесс",
        "u yerda boshqa jarayon tinglamoqda",
    ),
    "a file that is no socket is in the way": (
        "мешает файл, который не является сокетом",
        "soket bo‘lmagan fayl xalaqit bermoqda",
    ),
    "the settings file has changed while it was being read": (
        "файл настроек изменился во время чтения",
        "sozlamalar fayli o‘qilayotganda o‘zgardi",
    ),
    "a worker did not {what}": (
        "рабочий процесс не выполнил {what}",
        "ishchi jarayon bajarmadi: {what}",
    ),
    "{path}: cannot be read again: {name}": (
        "{path}: не удалось прочитать снова: {name}",
        "{path}: qayta o‘qib bo‘lmaydi: {name}",
    ),
    "needs the extra `otel`: pip install 'dhp-gateway[otel]'": (
        "нужно дополнение `otel`: pip install 'dhp-gateway[otel]'",
        "`otel` qo‘shimchasi kerak: pip install 'dhp-gateway[otel]'",
    ),
    "not started": ("не запущен", "ishga tushmagan"),
}
