"""Reasons why a gateway does not start, or does not apply new settings."""

from typing import Final

TABLE: Final = {
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
