"""Texts of the command line itself: its help, and errors in its arguments."""

from typing import Final

TABLE: Final = {
    # Headings, placeholders and notes.
    "Usage:": ("Использование:", "Qo‘llanishi:"),
    "Arguments": ("Аргументы", "Argumentlar"),
    "Options": ("Параметры", "Parametrlar"),
    "Commands": ("Команды", "Buyruqlar"),
    "[OPTIONS]": ("[ПАРАМЕТРЫ]", "[PARAMETRLAR]"),
    "COMMAND [ARGS]...": ("КОМАНДА [АРГУМЕНТЫ]...", "BUYRUQ [ARGUMENTLAR]..."),
    "default": ("по умолчанию", "odatda"),
    "env var": ("переменная окружения", "muhit o‘zgaruvchisi"),
    "required": ("обязательно", "majburiy"),
    # Errors.
    "Try '{command} --help' for help.": (
        "Справка: {command} --help",
        "Yordam: {command} --help",
    ),
    "Error: {why}": ("Ошибка: {why}", "Xato: {why}"),
    "No such command {name}. Did you mean {near}?": (
        "Нет такой команды: {name}. Возможно, имелось в виду {near}?",
        "Bunday buyruq yo‘q: {name}. Balki {near} nazarda tutilgandir?",
    ),
    "No such command {name}.": ("Нет такой команды: {name}.", "Bunday buyruq yo‘q: {name}."),
    "No such option: {name} (Possible options: {near})": (
        "Нет такого параметра: {name}. Похожие: {near}",
        "Bunday parametr yo‘q: {name}. O‘xshashlari: {near}",
    ),
    "No such option: {name}": ("Нет такого параметра: {name}", "Bunday parametr yo‘q: {name}"),
    "Missing command.": ("Не указана команда.", "Buyruq ko‘rsatilmagan."),
    "Missing argument {name}.": ("Не указано: {name}.", "Ko‘rsatilmagan: {name}."),
    "Got unexpected extra argument(s) ({names})": (
        "Лишнее в строке команды: {names}",
        "Buyruq qatorida ortiqcha: {names}",
    ),
    "Option {name} requires an argument.": (
        "После {name} нужно значение.",
        "{name} dan keyin qiymat kerak.",
    ),
    "Option {name} does not take a value.": (
        "Значение для {name} не задаётся.",
        "{name} uchun qiymat berilmaydi.",
    ),
    "Invalid value for {name}: {why}": (
        "Недопустимое значение для {name}: {why}",
        "{name} uchun yaroqsiz qiymat: {why}",
    ),
    "Input should be a valid integer, unable to parse string as an integer": (
        "нужно целое число",
        "butun son kerak",
    ),
    "Input should be a valid number, unable to parse string as a number": (
        "нужно число",
        "son kerak",
    ),
    "Input should be greater than or equal to {least}": (
        "должно быть не меньше {least}",
        "{least} dan kichik bo‘lmasligi kerak",
    ),
    "Input should be less than or equal to {most}": (
        "должно быть не больше {most}",
        "{most} dan katta bo‘lmasligi kerak",
    ),
    "one of {names}": ("одно из {names}", "{names} dan biri"),
    # Options of several commands.
    "Show this message and exit.": ("Показать эту справку.", "Shu yordamni ko‘rsatish."),
    "en, ru or uz; default: as LC_ALL, LC_MESSAGES or LANG say, else en.": (
        "Язык: en, ru или uz; по умолчанию — как в LC_ALL, LC_MESSAGES или LANG, иначе en.",
        "Til: en, ru yoki uz; odatda LC_ALL, LC_MESSAGES yoki LANG dagi, bo‘lmasa en.",
    ),
    (
        "Settings file (YAML); environment variables are laid on top. Default: what "
        "DHP_GATEWAY_CONFIG names, else /etc/dhp-gateway/gateway.yaml, else ./gateway.yaml."
    ): (
        (
            "Файл настроек (YAML); переменные окружения важнее него. По умолчанию — тот, что "
            "назван в DHP_GATEWAY_CONFIG, иначе /etc/dhp-gateway/gateway.yaml, иначе "
            "./gateway.yaml."
        ),
        (
            "Sozlamalar fayli (YAML); muhit o‘zgaruvchilari undan ustun. Odatda "
            "DHP_GATEWAY_CONFIG da ko‘rsatilgani, bo‘lmasa /etc/dhp-gateway/gateway.yaml, bo‘lmasa "
            "./gateway.yaml."
        ),
    ),
    "JSON, for programs.": ("JSON, для программ.", "JSON, dasturlar uchun."),
    "Which entry of `credentials` to use.": (
        "Какие учётные данные из `credentials` использовать.",
        "`credentials` dagi qaysi kirish ma’lumotlari ishlatilsin.",
    ),
    # The commands and their specific options.
    "A FHIR gateway for Uzbekistan's Digital Health Platform.": (
        "Шлюз FHIR для цифровой платформы здравоохранения Узбекистана.",
        "O‘zbekiston raqamli sog‘liqni saqlash platformasi uchun FHIR shlyuzi.",
    ),
    "Print the version.": ("Показать версию.", "Versiyani ko‘rsatish."),
    "Run the gateway.": ("Запустить шлюз.", "Shlyuzni ishga tushirish."),
    "Run an embedded DHP platform and a gateway in front of it; needs no network, no settings.": (
        (
            "Запустить встроенную платформу DHP и шлюз перед ней, чтобы попробовать; ни сети, ни "
            "настроек не нужно."
        ),
        (
            "Sinab ko‘rish uchun ichki DHP platformasi va uning oldida shlyuzni ishga tushirish; "
            "tarmoq ham, sozlamalar ham kerak emas."
        ),
    ),
    "Ask a few questions, write settings and secret files, and check them.": (
        "Задать несколько вопросов, записать настройки и файлы с секретами и проверить их.",
        "Bir necha savol berish, sozlamalar va sir fayllarini yozish va tekshirish.",
    ),
    "dhp-playground (default), dhp-production or custom.": (
        "Среда: dhp-playground (по умолчанию), dhp-production или custom.",
        "Muhit: dhp-playground (odatda), dhp-production yoki custom.",
    ),
    "The platform, with --environment custom.": (
        "Адрес платформы, при --environment custom.",
        "Platforma manzili, --environment custom bo‘lsa.",
    ),
    "Who gives tokens, the same.": (
        "Адрес выдачи токенов, тоже при --environment custom.",
        "Token beriladigan manzil, bu ham --environment custom bo‘lsa.",
    ),
    "As the DHP team gave it to you.": (
        "Как его выдала вам команда DHP.",
        "DHP jamoasi sizga berganidek.",
    ),
    "Holds the client secret, is copied; -: stdin.": (
        "Файл с секретом клиента, копируется; «-» — стандартный ввод.",
        "Mijoz siri yozilgan fayl, nusxasi olinadi; “-” — standart kirish.",
    ),
    "A private key instead; -: stdin.": (
        "Вместо секрета закрытый ключ; «-» — стандартный ввод.",
        "Sir o‘rniga yopiq kalit; “-” — standart kirish.",
    ),
    "The old system: `machine` (default), `container` or `network`.": (
        "Где старая система: `machine` (этот компьютер, по умолчанию), `container` или `network`.",
        "Eski tizim qayerda: `machine` (shu kompyuter, odatda), `container` yoki `network`.",
    ),
    "From where it calls, with `--caller network`.": (
        "Откуда она обращается, при `--caller network`.",
        "U qayerdan murojaat qiladi, `--caller network` bo‘lsa.",
    ),
    "Its container, with `--caller container`.": (
        "Имя её контейнера, при `--caller container`.",
        "Uning konteyneri nomi, `--caller container` bo‘lsa.",
    ),
    "file, or stdout (default in containers).": (
        "Куда писать журнал аудита: file или stdout (по умолчанию в контейнерах).",
        "Audit qayerga yoziladi: file yoki stdout (konteynerlarda odatda shu).",
    ),
    "Keep writes while the line is down; default no.": (
        "Хранить записи, пока нет связи; по умолчанию нет.",
        "Aloqa yo‘q paytda yozuvlarni saqlash; odatda yo‘q.",
    ),
    "Default: /etc/dhp-gateway if it can be written, else .": (
        "По умолчанию /etc/dhp-gateway, если туда можно писать, иначе текущая папка.",
        "Odatda /etc/dhp-gateway, agar u yerga yozib bo‘lsa, aks holda joriy papka.",
    ),
    "Ask nothing: flags, else defaults.": (
        "Ни о чём не спрашивать: параметры, иначе значения по умолчанию.",
        "Hech narsa so‘ramaslik: parametrlar, bo‘lmasa odatdagi qiymatlar.",
    ),
    "Validate the settings and print every problem; opens no connection.": (
        "Проверить настройки и показать все ошибки; соединений не открывает.",
        "Sozlamalarni tekshirib, barcha xatolarni ko‘rsatish; hech qayerga ulanmaydi.",
    ),
    "Check the whole set-up, step by step, and say what to do about each fault.": (
        "Проверить всё по шагам и о каждой неисправности сказать, что делать.",
        "Hammasini qadam-baqadam tekshirib, har bir nosozlikda nima qilishni aytish.",
    ),
    "Print the JSON Schema of the settings.": (
        "Показать JSON-схему настроек.",
        "Sozlamalarning JSON sxemasini ko‘rsatish.",
    ),
    "Exit with 0 when the running gateway says that it is ready.": (
        "Завершиться с кодом 0, если работающий шлюз сообщает, что готов.",
        "Ishlab turgan shlyuz tayyorman desa, 0 kodi bilan tugash.",
    ),
    (
        "Of the settings only admin.address is looked at: one that runs may well be healthy while "
        "the settings on disk are broken."
    ): (
        (
            "Из настроек важен только admin.address: шлюз может исправно работать и тогда, когда "
            "настройки на диске испорчены."
        ),
        (
            "Sozlamalardan faqat admin.address ga qaraladi: diskdagi sozlamalar buzilgan bo‘lsa "
            "ham, shlyuz bemalol ishlab turishi mumkin."
        ),
    ),
    "Ask the SSO for a token and print its type, lifetime, expiry and scope.": (
        "Запросить токен у сервиса входа и показать его вид, срок и область действия.",
        "Kirish xizmatidan token so‘rab, uning turi, muddati va doirasini ko‘rsatish.",
    ),
    "Print the token itself, too.": ("Показать и сам токен.", "Tokenning o‘zini ham ko‘rsatish."),
    "Find the search parameters that filter nothing, and print them for `fhir.unfiltered`.": (
        "Найти параметры поиска, которые ничего не отбирают, и показать их для `fhir.unfiltered`.",
        (
            "Hech narsani saralamaydigan qidiruv parametrlarini topib, `fhir.unfiltered` uchun "
            "ko‘rsatish."
        ),
    ),
    (
        "Shows no patient's data and keeps nothing. Exit codes: 0 all were asked, 1 some or all "
        "could not be asked, or it was interrupted, 2 wrong usage or settings, 3 a secret cannot "
        "be read."
    ): (
        (
            "Данных пациентов не показывает и ничего не хранит. Коды завершения: 0 — проверены "
            "все, 1 — некоторые или все проверить не удалось либо команда прервана, 2 — неверная "
            "команда или настройки, 3 — не удаётся прочитать секрет."
        ),
        (
            "Bemor ma’lumotlarini ko‘rsatmaydi va hech narsa saqlamaydi. Tugash kodlari: 0 — "
            "hammasi tekshirildi, 1 — ayrimlari yoki hech biri tekshirilmadi yoki to‘xtatildi, 2 — "
            "buyruq yoki sozlamalar noto‘g‘ri, 3 — sirni o‘qib bo‘lmaydi."
        ),
    ),
    "Default: all that the platform declares.": (
        "По умолчанию все, которые заявляет платформа.",
        "Odatda platforma e’lon qilganlarining hammasi.",
    ),
    "Requests a second at most.": (
        "Не больше стольких запросов в секунду.",
        "Bir soniyada ko‘pi bilan shuncha so‘rov.",
    ),
    "Try whether people are told: of `alerts.notify`.": (
        "Проверить, доходят ли до людей сообщения: адреса из `alerts.notify`.",
        "Xabarlar odamlarga yetib borishini tekshirish: `alerts.notify` dagi manzillar.",
    ),
    (
        "Exit codes: 0 every address took it, 1 some did not, 2 wrong usage or settings, 3 a "
        "secret cannot be read, or what sends messages is not installed."
    ): (
        (
            "Коды завершения: 0 — приняли все адреса, 1 — приняли не все, 2 — неверная команда или "
            "настройки, 3 — не удаётся прочитать секрет или не установлена библиотека отправки."
        ),
        (
            "Tugash kodlari: 0 — barcha manzillar qabul qildi, 1 — ayrimlari qabul qilmadi, 2 — "
            "buyruq yoki sozlamalar noto‘g‘ri, 3 — sirni o‘qib bo‘lmaydi yoki xabar yuboradigan "
            "kutubxona o‘rnatilmagan."
        ),
    ),
    "Send a test message to every address.": (
        "Отправить пробное сообщение на каждый адрес.",
        "Har bir manzilga sinov xabarini yuborish.",
    ),
    "Look after audit files.": ("Работа с файлами аудита.", "Audit fayllari bilan ishlash."),
    "Verify the hash chain of audit files, and name the first bad line.": (
        "Проверить цепочку хешей в файлах аудита и назвать первую испорченную строку.",
        "Audit fayllaridagi xeshlar zanjirini tekshirib, birinchi buzilgan qatorni aytish.",
    ),
    ("Exit codes: 0 whole, 1 a line is bad, 2 a file cannot be read, 4 the end is unproven."): (
        (
            "Коды завершения: 0 — цела, 1 — есть испорченная строка, 2 — не удаётся прочитать "
            "файл, 4 — конец не подтверждён."
        ),
        (
            "Tugash kodlari: 0 — butun, 1 — buzilgan qator bor, 2 — faylni o‘qib bo‘lmaydi, 4 — "
            "oxiri tasdiqlanmagan."
        ),
    ),
    "In any order.": ("В любом порядке.", "Istalgan tartibda."),
    "Look after queued writes.": (
        "Работа с записями в очереди отправки.",
        "Jo‘natish navbatidagi yozuvlar bilan ishlash.",
    ),
    "List the entries that wait for a person, and how many there are in all.": (
        "Показать записи, которые ждут решения человека, и сколько их всего.",
        "Odam qarorini kutayotgan yozuvlarni va jami nechtaligini ko‘rsatish.",
    ),
    "Entries of every state.": ("Записи в любом состоянии.", "Har qanday holatdagi yozuvlar."),
    "Only these; may be given several times.": (
        "Только в этом состоянии; можно указать несколько раз.",
        "Faqat shu holatdagilar; bir necha marta berish mumkin.",
    ),
    "Only of this caller.": ("Только от этой системы.", "Faqat shu tizimdan."),
    "Show one entry, what is about a patient masked.": (
        "Показать одну запись, скрыв всё о пациенте.",
        "Bitta yozuvni bemorga oid hamma narsani yashirib ko‘rsatish.",
    ),
    "Show address, fields and body: data of patients.": (
        "Показать адрес, поля заголовка и содержимое: это данные пациентов.",
        "Manzil, sarlavha maydonlari va mazmunini ko‘rsatish: bular bemor ma’lumotlari.",
    ),
    "Send entries once more that have failed or are unclear, or at once what waits.": (
        "Отправить ещё раз записи с ошибкой или неясным исходом либо сразу те, что ожидают.",
        (
            "Xato bilan tugagan yoki natijasi noaniq yozuvlarni yana yuborish, kutayotganlarini "
            "esa darhol yuborish."
        ),
    ),
    "As `outbox list` shows them.": (
        "Номера, как их показывает `outbox list`.",
        "Raqamlar, `outbox list` ko‘rsatganidek.",
    ),
    "All that have failed: none of them was saved.": (
        "Все с ошибкой: ни одна из них не сохранена.",
        "Xato bilan tugaganlarning hammasi: ularning hech biri saqlanmagan.",
    ),
    "All that have failed of a cause, as listed.": (
        "Все с ошибкой по этой причине, как в списке.",
        "Shu sabab bilan xato bo‘lganlarning hammasi, ro‘yxatdagidek.",
    ),
    "Give up entries that are not delivered; what waited for them goes on.": (
        "Отказаться от недоставленных записей; то, что их ожидало, пойдёт дальше.",
        "Yetkazilmagan yozuvlardan voz kechish; ularni kutganlari davom etadi.",
    ),
    "Why, for the audit; nothing about a patient.": (
        "Почему — для журнала аудита; ничего о пациенте.",
        "Nima uchun — audit uchun; bemor haqida hech narsa yozmang.",
    ),
    "Write all that is not delivered as JSON lines, what is about a patient masked.": (
        "Выгрузить всё недоставленное строками JSON, скрыв всё о пациентах.",
        (
            "Yetkazilmaganlarning hammasini JSON qatorlari qilib yozish, bemorlarga oid hamma "
            "narsa yashiriladi."
        ),
    ),
    "A new file, for its owner only; -: stdout.": (
        "Новый файл, только для владельца; «-» — стандартный вывод.",
        "Yangi fayl, faqat egasi uchun; “-” — standart chiqish.",
    ),
}
