"""Cautions: settings with which a gateway starts, but that are unsafe or probably not intended."""

from typing import Final

TABLE: Final = {
    "{name} has the former addresses, of guide 0.1.0": (
        "{name} — прежние адреса, из руководства 0.1.0",
        "{name} — avvalgi manzillar, 0.1.0 qo‘llanmasidan",
    ),
    "the platform of today is {successor}, which gives clients of its own": (
        "нынешняя платформа — {successor}, клиенты у неё свои",
        "hozirgi platforma — {successor}, uning mijozlari alohida",
    ),
    "is off: keys and passwords of callers ({names}) travel unencrypted to {address}": (
        "выключено: ключи и пароли систем ({names}) идут к {address} без шифрования",
        "o‘chirilgan: tizimlarning ({names}) kalit va parollari {address} ga shifrlanmay boradi",
    ),
    (
        "a browser from there is this caller: it gets data with the gateway's token, "
        "and no sign-in page"
    ): (
        "браузер оттуда считается этой системой: он получает данные с токеном шлюза, без страницы "
        "входа",
        "u yerdagi brauzer shu tizim hisoblanadi: kirish sahifasisiz, shlyuz tokeni bilan "
        "ma’lumot oladi",
    ),
    "give the caller a key or password, or leave out the browsers' addresses": (
        "дайте системе ключ или пароль или исключите адреса, где работают браузеры",
        "tizimga kalit yoki parol bering yoki brauzerlar ishlaydigan manzillarni chiqarib tashlang",
    ),
    (
        "give listen.tls.cert_file and listen.tls.key_file, or listen on 127.0.0.1 behind "
        "a proxy with TLS on this machine"
    ): (
        "задайте listen.tls.cert_file и listen.tls.key_file или слушайте на 127.0.0.1 за прокси с "
        "TLS на этом же компьютере",
        "listen.tls.cert_file va listen.tls.key_file ni bering yoki shu kompyuterdagi TLS li "
        "proksi ortida 127.0.0.1 da tinglang",
    ),
    (
        "is reachable from other machines, without TLS: passwords of operators ({names}) "
        "travel unencrypted"
    ): (
        "доступно с других машин, без TLS: пароли администраторов ({names}) идут без шифрования",
        "boshqa mashinalardan ochiq, TLS yo‘q: administratorlarning ({names}) parollari "
        "shifrlanmay boradi",
    ),
    "listen on 127.0.0.1, and reach it by ssh -L or behind TLS": (
        "слушайте на 127.0.0.1 и подключайтесь через ssh -L или через TLS",
        "127.0.0.1 da tinglang va unga ssh -L yoki TLS orqali ulaning",
    ),
    "is written into the settings file": (
        "записано прямо в файле настроек",
        "sozlamalar faylining o‘ziga yozilgan",
    ),
    "keep it alone in a file that only the gateway can read, and name that in {key}": (
        "храните это в отдельном файле, который читает только шлюз, и укажите его в {key}",
        "uni faqat shlyuz o‘qiy oladigan alohida faylda saqlang va uni {key} da ko‘rsating",
    ),
    "holds a password in the settings file": (
        "содержит пароль прямо в файле настроек",
        "sozlamalar faylida parol bor",
    ),
    "give it by the variable {variable}": (
        "задайте это переменной {variable}",
        "uni {variable} o‘zgaruvchisi bilan bering",
    ),
    "is no operation of FHIR R5": (
        "такой операции в FHIR R5 нет",
        "FHIR R5 da bunday operatsiya yo‘q",
    ),
    "did you mean {near}? If the platform defines it, all is well": (
        "имелось в виду {near}? Если её определяет сама платформа, всё в порядке",
        "{near} nazarda tutilganmidi? Uni platformaning o‘zi belgilasa, hammasi joyida",
    ),
    "setting {key}": ("настройка {key}", "sozlama {key}"),
}
