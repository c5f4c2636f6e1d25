"""Problems of a single value of the settings."""

from typing import Final

TABLE: Final = {
    "is not a known kind of database": (
        "неизвестный вид базы данных",
        "ma’lumotlar bazasining noma’lum turi",
    ),
    (
        "write sqlite:////path/of/file.db (four slashes: the path is absolute), or "
        "postgresql://[user[:password]@]host[:port]/database[?"
        "sslmode=verify-full&sslrootcert=/path], for a Unix socket "
        "postgresql://user@/database?host=/run/postgresql"
    ): (
        (
            "пишите sqlite:////path/of/file.db (четыре косые черты: путь абсолютный) или "
            "postgresql://[user[:password]@]host[:port]/database[?"
            "sslmode=verify-full&sslrootcert=/path], для сокета Unix "
            "postgresql://user@/database?host=/run/postgresql"
        ),
        (
            "sqlite:////path/of/file.db deb yozing (to‘rtta qiya chiziq: yo‘l mutlaq) yoki "
            "postgresql://[user[:password]@]host[:port]/database[?"
            "sslmode=verify-full&sslrootcert=/path], Unix soketi uchun "
            "postgresql://user@/database?host=/run/postgresql"
        ),
    ),
    "must be text": ("должно быть текстом", "matn bo‘lishi kerak"),
    "put it in quotes": ("возьмите в кавычки", "qo‘shtirnoq ichiga oling"),
    "names no file by an absolute path": (
        "нет абсолютного пути к файлу",
        "faylning mutlaq yo‘li ko‘rsatilmagan",
    ),
    "holds an unknown option": ("содержит неизвестный параметр", "noma’lum parametr bor"),
    "{hint}; known: host, sslmode, sslrootcert": (
        "{hint}; известны: host, sslmode, sslrootcert",
        "{hint}; ma’lumlari: host, sslmode, sslrootcert",
    ),
    "has an unknown sslmode": ("неизвестное значение sslmode", "sslmode qiymati noma’lum"),
    "one of {ssl_modes}": ("одно из {ssl_modes}", "{ssl_modes} dan biri"),
    "has a sslrootcert that is no absolute path": (
        "путь в sslrootcert не абсолютный",
        "sslrootcert dagi yo‘l mutlaq emas",
    ),
    "names no database": ("не указана база данных", "ma’lumotlar bazasi ko‘rsatilmagan"),
    "names no directory of a Unix socket": (
        "не указана папка сокета Unix",
        "Unix soketi papkasi ko‘rsatilmagan",
    ),
    "names no valid host": (
        "узел не указан или указан неверно",
        "xost ko‘rsatilmagan yoki noto‘g‘ri",
    ),
    "is no FHIR interaction": ("это не вид запроса FHIR", "bu FHIR amali emas"),
    "use * or some of {interactions}": (
        "пишите * или нужное из списка: {interactions}",
        "* yoki ro‘yxatdan keraklisini yozing: {interactions}",
    ),
    "is no resource type of FHIR R5": (
        "такого типа ресурса в FHIR R5 нет",
        "FHIR R5 da bunday resurs turi yo‘q",
    ),
    "use * or types such as Patient, Observation": (
        "пишите * или типы, например Patient, Observation",
        "* yoki turlarni yozing, masalan Patient, Observation",
    ),
    "is no name of a FHIR operation": (
        "это не имя операции FHIR",
        "bu FHIR operatsiyasi nomi emas",
    ),
    "use * or names such as $expand": (
        "пишите * или имена, например $expand",
        "* yoki nomlarni yozing, masalan $expand",
    ),
    "holds characters that no client id may hold": (
        "содержит знаки, которых в идентификаторе клиента не бывает",
        "mijoz identifikatorida bo‘lmaydigan belgilar bor",
    ),
    "copy it again, without line breaks": (
        "скопируйте снова, без переносов строк",
        "qayta nusxalang, qator uzilishlarisiz",
    ),
    "is no scope": ("это не область доступа", "bu ruxsat doirasi emas"),
    "write the scopes with one space between, or null for none": (
        "пишите области доступа через один пробел или null, если их нет",
        "ruxsat doiralarini bitta bo‘sh joy bilan ajrating; ular yo‘q bo‘lsa, null yozing",
    ),
    "cannot be used": ("такое значение не подходит", "bunday qiymat yaroqsiz"),
    "see docs/settings.md": ("смотрите docs/settings.md", "docs/settings.md ga qarang"),
    "did you mean {homes}?": ("имелось в виду {homes}?", "balki {homes} nazarda tutilgandir?"),
    "known here: {choices}": ("здесь известны: {choices}", "bu yerda ma’lumlari: {choices}"),
    "add it": ("добавьте", "qo‘shing"),
    "must be true or false": ("должно быть true или false", "true yoki false bo‘lishi kerak"),
    "must be a whole number": ("должно быть целым числом", "butun son bo‘lishi kerak"),
    "write it without quotes and fraction": (
        "пишите без кавычек и дробной части",
        "qo‘shtirnoqsiz va kasrsiz yozing",
    ),
    "must be a number": ("должно быть числом", "son bo‘lishi kerak"),
    "write it without quotes and unit": (
        "пишите без кавычек и единиц измерения",
        "qo‘shtirnoqsiz va o‘lchov birligisiz yozing",
    ),
    "must be a finite number": ("должно быть конечным числом", "chekli son bo‘lishi kerak"),
    "is empty": ("пусто", "bo‘sh"),
    "give a text, or leave the key out": (
        "укажите текст или уберите ключ",
        "matn bering yoki kalit so‘zni olib tashlang",
    ),
    "must be a group of `name: value` lines": (
        "должно быть группой строк вида `name: value`",
        "`name: value` ko‘rinishidagi qatorlar guruhi bo‘lishi kerak",
    ),
    "must be a group of keys": (
        "должно быть группой ключей",
        "kalit so‘zlar guruhi bo‘lishi kerak",
    ),
    "must be a list": ("должно быть списком", "ro‘yxat bo‘lishi kerak"),
    "write [first, second], or a line with a hyphen for each": (
        "пишите [первое, второе] или каждое с новой строки после дефиса",
        "[birinchi, ikkinchi] deb yoki har birini chiziqcha bilan yangi qatorda yozing",
    ),
    "must be more than {limit}": ("должно быть больше {limit}", "{limit} dan katta bo‘lishi kerak"),
    "must be at least {limit}": ("должно быть не меньше {limit}", "kamida {limit} bo‘lishi kerak"),
    "must be at most {limit}": (
        "должно быть не больше {limit}",
        "ko‘pi bilan {limit} bo‘lishi kerak",
    ),
    "must be less than {limit}": (
        "должно быть меньше {limit}",
        "{limit} dan kichik bo‘lishi kerak",
    ),
    "must be one of {limit}": (
        "должно быть одним из {limit}",
        "quyidagilardan biri bo‘lishi kerak: {limit}",
    ),
    "is too large": ("слишком велико", "juda katta"),
    "{first} or {second}": ("{first} или {second}", "{first} yoki {second}"),
    "is not a known kind of store": ("неизвестный вид хранилища", "omborning noma’lum turi"),
    (
        "write memory://, redis://[user:password@]host[:port][/database], the same "
        "with rediss:// for TLS, or unix://[user:password@]/path/of/socket[?"
        "db=database]"
    ): (
        (
            "пишите memory://, redis://[user:password@]host[:port][/database], то же с "
            "rediss:// для TLS или unix://[user:password@]/path/of/socket[?db=database]"
        ),
        (
            "memory://, redis://[user:password@]host[:port][/database], TLS uchun rediss:// "
            "yoki unix://[user:password@]/path/of/socket[?db=database] deb yozing"
        ),
    ),
    "must not hold a query": (
        "не должно содержать параметров запроса",
        "so‘rov qismi bo‘lmasligi kerak",
    ),
    "needs an absolute path": ("нужен абсолютный путь", "mutlaq yo‘l kerak"),
    "may hold no other query than ?db=": (
        "из параметров запроса допустим только ?db=",
        "so‘rov qismida faqat ?db= bo‘lishi mumkin",
    ),
    "names a database that is no number": (
        "номер базы данных — не число",
        "ma’lumotlar bazasi raqami son emas",
    ),
    "write it as {proposed}://host…": (
        "пишите так: {proposed}://host…",
        "shunday yozing: {proposed}://host…",
    ),
    "holds a character that no URL may hold": (
        "содержит знак, которого в URL быть не может",
        "URL da bo‘lishi mumkin bo‘lmagan belgi bor",
    ),
    "percent-encode it; host names in other letters are written in their xn-- form": (
        "запишите его через %; имена узлов другими буквами пишутся в виде xn--",
        "uni % bilan yozing; boshqa harflardagi xost nomlari xn-- shaklida yoziladi",
    ),
    "must begin with {begins}": (
        "должно начинаться с {begins}",
        "{begins} bilan boshlanishi kerak",
    ),
    "must not hold a user or password": (
        "не должно содержать имени пользователя и пароля",
        "foydalanuvchi nomi yoki parol bo‘lmasligi kerak",
    ),
    "remove everything up to the @": (
        "уберите всё до @ включительно",
        "@ gacha hammasini, @ bilan birga olib tashlang",
    ),
    "must not hold a query or fragment": (
        "не должно содержать параметров запроса и фрагмента",
        "so‘rov yoki fragment bo‘lmasligi kerak",
    ),
    "remove everything from the ? or # on": (
        "уберите всё, начиная с ? или #",
        "? yoki # dan boshlab hammasini olib tashlang",
    ),
    "percent-encode it": ("запишите его через %", "uni % bilan yozing"),
    "must not hold a fragment": ("не должно содержать фрагмента", "fragment bo‘lmasligi kerak"),
    "percent-encode a # in the password as %23": (
        "# в пароле пишите как %23",
        "paroldagi # ni %23 deb yozing",
    ),
    "has a path with empty, `.` or `..` parts": (
        "в пути есть пустые части, `.` или `..`",
        "yo‘lda bo‘sh, `.` yoki `..` qismlar bor",
    ),
    "write the path out": ("запишите путь полностью", "yo‘lni to‘liq yozing"),
    "must not hold a path": ("не должно содержать пути", "yo‘l qismi bo‘lmasligi kerak"),
    "write it as http://proxy.example:3128": (
        "пишите как http://proxy.example:3128",
        "http://proxy.example:3128 kabi yozing",
    ),
    "write only scheme, host and port": (
        "пишите только схему, узел и порт",
        "faqat sxema, xost va portni yozing",
    ),
    "needs host and port and nothing more": (
        "нужны узел и порт и ничего больше",
        "faqat xost va port kerak",
    ),
    "e.g. tls://syslog.example:6514": (
        "например tls://syslog.example:6514",
        "masalan tls://syslog.example:6514",
    ),
    "must begin with a slash": (
        "должно начинаться с косой черты",
        "qiya chiziq bilan boshlanishi kerak",
    ),
    "write it like /fhir, or / for none": (
        "пишите как /fhir или /, если пути нет",
        "/fhir kabi yozing, yo‘l bo‘lmasa /",
    ),
    "is not a URL: host or port cannot be read": (
        "это не URL: узел или порт не читается",
        "bu URL emas: xost yoki portni o‘qib bo‘lmaydi",
    ),
    "percent-encode what the password holds of : / ? # [ ] @": (
        "знаки : / ? # [ ] @ в пароле запишите через %",
        "paroldagi : / ? # [ ] @ belgilarini % bilan yozing",
    ),
    "is not a clean path": ("путь написан неверно", "yo‘l noto‘g‘ri yozilgan"),
    "use letters, digits, dots, hyphens and underscores, e.g. /fhir/r5": (
        "используйте буквы, цифры, точки, дефисы и подчёркивания, например /fhir/r5",
        "harf, raqam, nuqta, chiziqcha va pastki chiziqdan foydalaning, masalan /fhir/r5",
    ),
    "write a number of bytes, or a size such as 64KiB, 16MiB or 1GiB": (
        "пишите число байт или размер вида 64KiB, 16MiB или 1GiB",
        "baytlar sonini yoki 64KiB, 16MiB, 1GiB kabi hajmni yozing",
    ),
    "write host:port, e.g. 127.0.0.1:8080 or [::1]:8080, or unix:/run/dhp-gateway.sock": (
        (
            "пишите host:port, например 127.0.0.1:8080 или [::1]:8080, либо "
            "unix:/run/dhp-gateway.sock"
        ),
        (
            "host:port deb yozing, masalan 127.0.0.1:8080 yoki [::1]:8080, yoki "
            "unix:/run/dhp-gateway.sock"
        ),
    ),
    "write an address such as 10.20.0.7 or a network such as 10.20.0.0/16": (
        "пишите адрес вида 10.20.0.7 или сеть вида 10.20.0.0/16",
        "10.20.0.7 kabi manzil yoki 10.20.0.0/16 kabi tarmoq yozing",
    ),
    "is not a size": ("это не размер", "bu hajm emas"),
    "is not an address": ("это не адрес", "bu manzil emas"),
    "has a port above 65535": ("порт больше 65535", "port 65535 dan katta"),
    "needs an absolute path after `unix:`": (
        "после `unix:` нужен абсолютный путь",
        "`unix:` dan keyin mutlaq yo‘l kerak",
    ),
    "is longer than the 107 bytes a unix socket's path may have": (
        "длиннее 107 байт, допустимых для пути сокета Unix",
        "Unix soketi yo‘li uchun mumkin bo‘lgan 107 baytdan uzun",
    ),
    "shorten it": ("сократите", "qisqartiring"),
    "give the secret, or leave the key out": (
        "укажите секрет или уберите ключ",
        "sirni bering yoki kalit so‘zni olib tashlang",
    ),
    "is not a path": ("это не путь", "bu yo‘l emas"),
    "give the path of a file": ("укажите путь к файлу", "fayl yo‘lini bering"),
    "is not a network": ("это не сеть", "bu tarmoq emas"),
    "has bits set behind the prefix": (
        "за префиксом есть лишние биты",
        "prefiksdan keyin ortiqcha bitlar bor",
    ),
    "did you mean {network}?": (
        "имелось в виду {network}?",
        "balki {network} nazarda tutilgandir?",
    ),
    "holds a control character or a line break": (
        "содержит управляющий знак или перенос строки",
        "boshqaruv belgisi yoki qator uzilishi bor",
    ),
    "write it on one line": ("пишите в одну строку", "bitta qatorda yozing"),
    "is not a usable name": ("такое имя не годится", "bunday nom yaroqsiz"),
    "use 1 to 64 letters, digits, dots, hyphens or underscores": (
        "от 1 до 64 букв, цифр, точек, дефисов или подчёркиваний",
        "1 dan 64 gacha harf, raqam, nuqta, chiziqcha yoki pastki chiziq",
    ),
    "is not the name of a header": ("это не имя заголовка", "bu sarlavha nomi emas"),
    "use letters, digits and hyphens, as in X-User": (
        "используйте буквы, цифры и дефисы, как в X-User",
        "harf, raqam va chiziqchadan foydalaning, X-User dagi kabi",
    ),
    "is a header with a meaning of its own": (
        "у этого заголовка уже есть своё значение",
        "bu sarlavhaning o‘z ma’nosi bor",
    ),
    "name one of your own, e.g. X-User": (
        "выберите свой, например X-User",
        "o‘zingiznikini tanlang, masalan X-User",
    ),
    "is not a media type": ("это не тип содержимого", "bu kontent turi emas"),
    "write it like application/fhir+json": (
        "пишите как application/fhir+json",
        "application/fhir+json kabi yozing",
    ),
    "write it as FHIR does, e.g. Observation": (
        "пишите как в FHIR, например Observation",
        "FHIR dagidek yozing, masalan Observation",
    ),
    "is no search parameter": ("это не параметр поиска", "bu qidiruv parametri emas"),
    "give its name alone, e.g. date": (
        "укажите одно имя, например date",
        "faqat nomini bering, masalan date",
    ),
    "must not be negative": ("не должно быть отрицательным", "manfiy bo‘lmasligi kerak"),
}
