"""Questions and messages of `init`, and the comments that it writes."""

from typing import Final

TABLE: Final = {
    "dhp-playground, to try": ("dhp-playground — для проб", "dhp-playground — sinash uchun"),
    "dhp-production, for real work": (
        "dhp-production — для настоящей работы",
        "dhp-production — haqiqiy ish uchun",
    ),
    "other addresses": ("другие адреса", "boshqa manzillar"),
    "on this machine": ("на этом компьютере", "shu kompyuterda"),
    "in a container on this machine": (
        "в контейнере на этом компьютере",
        "shu kompyuterdagi konteynerda",
    ),
    "elsewhere in the network": (
        "на других компьютерах в сети",
        "tarmoqdagi boshqa kompyuterlarda",
    ),
    "by a secret": ("секретом", "sir bilan"),
    "by a private key": ("закрытым ключом", "yopiq kalit bilan"),
    "to a file": ("в файл", "faylga"),
    "to standard output": ("в стандартный вывод", "standart chiqishga"),
    "no": ("нет", "yo‘q"),
    "yes": ("да", "ha"),
    "{flag} is needed where nobody can be asked": (
        "укажите {flag}: спросить здесь некого",
        "{flag} kerak: bu yerda so‘raydigan odam yo‘q",
    ),
    "{flag}: is for --environment custom alone": (
        "{flag}: это только для --environment custom",
        "{flag}: bu faqat --environment custom uchun",
    ),
    "standard input is empty; lead the secret there: {flag} - < FILE": (
        "на стандартном вводе пусто; подайте туда секрет: {flag} - < FILE",
        "standart kirish bo‘sh; sirni o‘sha yerga bering: {flag} - < FILE",
    ),
    "Where does the audit go?": ("Куда писать журнал аудита?", "Audit qayerga yozilsin?"),
    "The address of the FHIR server": ("Адрес сервера FHIR", "FHIR serveri manzili"),
    "The address that gives tokens": ("Адрес выдачи токенов", "Token beriladigan manzil"),
    "How does the gateway show who it is?": (
        "Чем шлюз подтверждает себя сервису входа?",
        "Shlyuz kirish xizmatiga o‘zini nima bilan tasdiqlaydi?",
    ),
    "From which addresses or networks does it call?": (
        "С каких адресов или сетей она обращается?",
        "U qaysi manzil yoki tarmoqlardan murojaat qiladi?",
    ),
    "Keep writes while the line is down (outbox)?": (
        "Хранить записи, пока нет связи (очередь отправки, outbox)?",
        "Aloqa yo‘q paytda yozuvlar saqlansinmi (jo‘natish navbati, outbox)?",
    ),
    "Which platform?": ("Какая платформа?", "Qaysi platforma?"),
    "client_id": ("client_id, который вам выдали", "sizga berilgan client_id"),
    "Where does the old system run?": (
        "Где работает старая система?",
        "Eski tizim qayerda ishlaydi?",
    ),
    "The name of its container": ("Имя её контейнера", "Uning konteyneri nomi"),
    "The secret (nothing is shown)": (
        "Секрет клиента (на экране не виден)",
        "Mijoz siri (ekranda ko‘rinmaydi)",
    ),
    "{flag}: one of {names}": ("{flag}: одно из {names}", "{flag}: {names} dan biri"),
    "The key's file": ("Файл ключа", "Kalit fayli"),
    "Next:": ("Дальше:", "Keyingi qadamlar:"),
    "Then your system calls {url} in the place of the platform.": (
        "После этого ваша система обращается вместо платформы к {url}.",
        "Shundan so‘ng tizimingiz platforma o‘rniga {url} ga murojaat qiladi.",
    ),
    "It sends the header X-Api-Key with what stands in {path}.": (
        "В заголовке X-Api-Key она передаёт ключ из файла {path}.",
        "U X-Api-Key sarlavhasida {path} faylidagi kalitni yuboradi.",
    ),
    "written: {path}": ("записано: {path}", "yozildi: {path}"),
    "The unit hands over a secret; for a key, first: `systemctl edit dhp-gateway`": (
        (
            "Служба передаёт шлюзу секрет; если у вас ключ, сначала выполните: `systemctl "
            "edit dhp-gateway`"
        ),
        (
            "Xizmat shlyuzga sirni uzatadi; sizda kalit bo‘lsa, avval bajaring: `systemctl "
            "edit dhp-gateway`"
        ),
    ),
    "is there already, and nothing was changed; move it away first": (
        "уже есть, и ничего не изменено; сначала переместите его",
        "allaqachon bor, hech narsa o‘zgartirilmadi; avval uni boshqa joyga oling",
    ),
    "the private key, alone in its file; readable for few": (
        "файл только с закрытым ключом; доступ к нему у немногих",
        "faqat yopiq kalit yozilgan fayl; uni kam kishi o‘qiy oladi",
    ),
    "the secret, alone in its file; readable for few": (
        "файл только с секретом; доступ к нему у немногих",
        "faqat sir yozilgan fayl; uni kam kishi o‘qiy oladi",
    ),
    "which platform; begin with dhp-playground": (
        "какая платформа; начните с dhp-playground",
        "qaysi platforma; dhp-playground dan boshlang",
    ),
    "by what the gateway is known to the platform": (
        "по чему платформа узнаёт шлюз",
        "platforma shlyuzni shular bilan taniydi",
    ),
    "used for all callers that name no other": (
        "для всех систем, где не указано иное",
        "boshqasi ko‘rsatilmagan barcha tizimlar uchun",
    ),
    "as you were given it": ("как вам его выдали", "sizga berilganidek"),
    "where your systems reach the gateway": (
        "адрес, по которому системы обращаются к шлюзу",
        "tizimlaringiz shlyuzga murojaat qiladigan manzil",
    ),
    "for operators": ("для администраторов", "administratorlar uchun"),
    "health, metrics, and the page /status": (
        "состояние, метрики и страница /status",
        "holat, metrikalar va /status sahifasi",
    ),
    "a record of each request; ids of patients in it are patient data": (
        "запись о каждом запросе; идентификаторы пациентов в ней — данные пациентов",
        "har bir so‘rov qaydi; undagi bemor identifikatorlari bemor ma’lumotidir",
    ),
    "into a file, where changed lines can be found out": (
        "в файл, где видно изменённые строки",
        "faylga, unda o‘zgartirilgan qatorlarni aniqlasa bo‘ladi",
    ),
    "check it by `dhp-gateway audit verify`": (
        "проверка: `dhp-gateway audit verify`",
        "tekshirish: `dhp-gateway audit verify`",
    ),
    "reaches and is reached by that container alone": (
        "доступен только тому контейнеру",
        "faqat o‘sha konteynerga ochiq",
    ),
    "built by `make image`, or loaded": (
        "собран командой `make image` или загружен",
        "`make image` bilan yig‘ilgan yoki yuklangan",
    ),
    "your system's": ("сеть вашей системы", "tizimingiz tarmog‘i"),
    "owns the files in this folder": ("владелец файлов в этой папке", "bu papkadagi fayllar egasi"),
    "it writes nowhere else": ("больше никуда не пишет", "boshqa joyga yozmaydi"),
    "also after a reboot": ("и после перезагрузки", "qayta yuklangandan keyin ham"),
    "settings and secrets": ("настройки и секреты", "sozlamalar va sirlar"),
    "the FHIR server behind the gateway": ("сервер FHIR за шлюзом", "shlyuz ortidagi FHIR serveri"),
    "its address": ("его адрес", "uning manzili"),
    "where the gateway gets its token": ("где шлюз получает токен", "shlyuz token oladigan joy"),
    "the address that gives tokens": ("адрес выдачи токенов", "token beriladigan manzil"),
    "the gateway signs instead of a secret": (
        "вместо секрета шлюз использует подпись",
        "sir o‘rniga shlyuz imzo ishlatadi",
    ),
    "keeps writes while the line is down": (
        "хранит записи, пока нет связи",
        "aloqa yo‘q paytda yozuvlarni saqlaydi",
    ),
    "only for callers that ask for it, see docs/outbox.md": (
        "только для систем, которые об этом просят: docs/outbox.md",
        "faqat so‘ragan tizimlar uchun: docs/outbox.md",
    ),
    "where they are kept": ("где они хранятся", "ular saqlanadigan joy"),
    "without this key nobody can read them": (
        "без этого ключа их никто не прочтёт",
        "bu kalitsiz ularni hech kim o‘qiy olmaydi",
    ),
    "every address of this machine, see callers": (
        "все адреса этого компьютера, смотрите callers",
        "bu kompyuterning hamma manzili, callers ga qarang",
    ),
    "only this machine, or this container, gets there": (
        "доступно только этому компьютеру или контейнеру",
        "faqat shu kompyuter yoki konteynerdan ochiq",
    ),
    "who may call; nobody else is let in": (
        "кому можно обращаться; остальных шлюз не пускает",
        "kim murojaat qilishi mumkin; boshqalarni shlyuz kiritmaydi",
    ),
    "its name in log and audit": ("её имя в логе и аудите", "uning log va auditdagi nomi"),
    "the addresses it calls from": (
        "адреса, с которых она обращается",
        "u murojaat qiladigan manzillar",
    ),
    "what it sends in the header X-Api-Key": (
        "что она передаёт в заголовке X-Api-Key",
        "u X-Api-Key sarlavhasida yuboradigan qiymat",
    ),
    "to standard output; collect and keep it": (
        "в стандартный вывод; собирайте и храните его",
        "standart chiqishga; uni yig‘ing va saqlang",
    ),
    "the audit": ("журнал аудита", "audit"),
    "the outbox": ("очередь отправки", "jo‘natish navbati"),
    "number": ("номер", "raqam"),
    "a number from 1 to {most}": ("число от 1 до {most}", "1 dan {most} gacha son"),
}
