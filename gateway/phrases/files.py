"""Problems of the files from which settings are read."""

from typing import Final

TABLE: Final = {
    "did you mean {near}?": ("имелось в виду {near}?", "balki {near} nazarda tutilgandir?"),
    "see docs/settings.md for the names": (
        "имена — в docs/settings.md",
        "nomlar docs/settings.md da",
    ),
    "names no setting": ("такой настройки нет", "bunday sozlama yo‘q"),
    "is not a known key": ("неизвестный ключ", "noma’lum kalit so‘z"),
    "line {line}": ("строка {line}", "{line}-qator"),
    "is missing": ("не задано", "berilmagan"),
    (
        "environment: custom, the default, fills in no address: add it, or choose "
        "dhp-playground (to try) or dhp-production (for real work)"
    ): (
        "environment: custom (так и по умолчанию) не подставляет адресов: добавьте его или "
        "выберите dhp-playground (для проб) либо dhp-production (для работы)",
        "environment: custom (odatda ham shu) manzillarni to‘ldirmaydi: uni qo‘shing yoki "
        "dhp-playground (sinash uchun) yoxud dhp-production (ish uchun) ni tanlang",
    ),
    "give the variable a value, or remove it; {hint}": (
        "задайте переменной значение или уберите её; {hint}",
        "o‘zgaruvchiga qiymat bering yoki uni olib tashlang; {hint}",
    ),
    "choose one of them": ("выберите одно из них", "ulardan birini tanlang"),
    "in an environment variable, write it as JSON": (
        "в переменной окружения пишите это как JSON",
        "muhit o‘zgaruvchisida uni JSON qilib yozing",
    ),
    "is still the example's placeholder": (
        "осталась заготовка из примера",
        "misoldagi namuna o‘zgartirilmay qolgan",
    ),
    "put your own value in its place": (
        "впишите вместо неё своё значение",
        "o‘rniga o‘z qiymatingizni yozing",
    ),
    "make one with: openssl rand -base64 32 | tr '+/' '-_'": (
        "создать так: openssl rand -base64 32 | tr '+/' '-_'",
        "shunday yaratiladi: openssl rand -base64 32 | tr '+/' '-_'",
    ),
    "is not 32 bytes as base64url; {make_key}": (
        "это не 32 байта в base64url; {make_key}",
        "bu base64url dagi 32 bayt emas; {make_key}",
    ),
    "check that it is the right file": (
        "проверьте, тот ли это файл",
        "kerakli fayl ekanini tekshiring",
    ),
    "write the secret into it: (umask 077; printf %s 'SECRET' > {path})": (
        "запишите в него секрет: (umask 077; printf %s 'SECRET' > {path})",
        "unga sirni yozing: (umask 077; printf %s 'SECRET' > {path})",
    ),
    "check the path, or write the file: (umask 077; printf %s 'SECRET' > {path})": (
        "проверьте путь или создайте файл: (umask 077; printf %s 'SECRET' > {path})",
        "yo‘lni tekshiring yoki faylni yarating: (umask 077; printf %s 'SECRET' > {path})",
    ),
    "let the gateway's user, and nobody else, read it": (
        "разрешите чтение пользователю шлюза, и никому больше",
        "uni faqat shlyuz foydalanuvchisi o‘qiy olsin",
    ),
    "name the file in it": ("укажите файл внутри неё", "undagi faylni ko‘rsating"),
    "may be read or changed by others (mode {mode:04o})": (
        "могут читать или менять другие (права {mode:04o})",
        "boshqalarga ochiq: o‘qilishi yoki o‘zgartirilishi mumkin (huquqlar {mode:04o})",
    ),
    "is larger than {bytes} bytes": ("больше {bytes} байт", "{bytes} baytdan katta"),
    "stands between quotation marks, which would be part of it": (
        "стоит в кавычках, и они станут частью значения",
        "qo‘shtirnoq ichida turibdi, qo‘shtirnoq ham qiymatning bir qismi bo‘lib qoladi",
    ),
    "begins or ends with a blank or a character that nobody sees": (
        "начинается или кончается пробелом или невидимым знаком",
        "bo‘sh joy yoki ko‘rinmas belgi bilan boshlanadi yoki tugaydi",
    ),
    "no file at {places}": ("нет файла в {places}", "{places} da fayl yo‘q"),
    "{origin}, and no variable holds a setting; to try without any: {trial}": (
        "{origin}, и ни одна переменная не содержит настройки; попробовать без настроек: {trial}",
        "{origin}, sozlama yozilgan o‘zgaruvchi ham yo‘q; sozlamasiz sinab ko‘rish uchun: {trial}",
    ),
    "variables alone": ("только переменные", "faqat o‘zgaruvchilar"),
    "found as {place}": ("найден как {place}", "{place} sifatida topildi"),
    "no settings file": ("нет файла настроек", "sozlamalar fayli yo‘q"),
    "use --config FILE": ("используйте --config FILE", "--config FILE dan foydalaning"),
    "check indentation, colons and quotes there": (
        "проверьте там и строкой выше отступы, двоеточия и кавычки",
        "shu va undan oldingi qatordagi bo‘sh joylar, ikki nuqtalar va qo‘shtirnoqlarni tekshiring",
    ),
    "{look}, and whether a bracket was left open above": (
        "{look}, а также не осталась ли выше открытая скобка",
        "{look}, yuqorida qavs ochiq qolmaganini ham ko‘ring",
    ),
    "line {line}, column {column}": (
        "строка {line}, столбец {column}",
        "{line}-qator, {column}-ustun",
    ),
    "holds a character that is no text": (
        "содержит знак, которого в тексте быть не может",
        "matnda bo‘lmaydigan belgi bor",
    ),
    "indent with spaces; YAML takes no tabs there": (
        "делайте отступы пробелами; табуляцию YAML там не принимает",
        "qatorni bo‘sh joylar bilan suring; YAML u yerda tabulyatsiyani qabul qilmaydi",
    ),
    "not readable": ("не читается", "o‘qilmaydi"),
    "is not valid YAML: {what}": ("это не YAML: {what}", "bu YAML emas: {what}"),
    "delete what stands there unseen; {look}": (
        "удалите стоящий там невидимый знак; {look}",
        "u yerdagi ko‘rinmas belgini o‘chiring; {look}",
    ),
    "is not valid YAML": ("это не YAML", "bu YAML emas"),
    "save it as plain text": ("сохраните как простой текст", "oddiy matn qilib saqlang"),
    "is not valid YAML: a tab stands before the key": (
        "это не YAML: перед ключом стоит табуляция",
        "bu YAML emas: kalit so‘z oldida tabulyatsiya turibdi",
    ),
    "save it as UTF-8; in PowerShell: Set-Content -Encoding utf8": (
        "сохраните в UTF-8; в PowerShell: Set-Content -Encoding utf8",
        "UTF-8 da saqlang; PowerShell da: Set-Content -Encoding utf8",
    ),
    "is not UTF-8 text, but looks like UTF-16": (
        "это не текст UTF-8, а похоже на UTF-16",
        "bu UTF-8 matni emas, UTF-16 ga o‘xshaydi",
    ),
    "is not UTF-8 text": ("это не текст UTF-8", "bu UTF-8 matni emas"),
    "check the path after --config or in DHP_GATEWAY_CONFIG": (
        "проверьте путь после --config или в DHP_GATEWAY_CONFIG",
        "--config dan keyingi yoki DHP_GATEWAY_CONFIG dagi yo‘lni tekshiring",
    ),
    "let the user who runs this read it, or run it as the gateway's user": (
        "дайте право чтения тому, кто это запускает, или запускайте от имени пользователя шлюза",
        (
            "buni ishga tushiruvchiga o‘qish huquqini bering yoki shlyuz foydalanuvchisi "
            "nomidan ishga tushiring"
        ),
    ),
    "is larger than 4 MiB": ("больше 4 MiB", "4 MiB dan katta"),
    "is it the right file?": ("тот ли это файл?", "bu kerakli faylmi?"),
    "is not a group of keys": ("это не группа ключей", "bu kalit so‘zlar guruhi emas"),
    "begin with e.g. `listen:`": (
        "начните, например, с `listen:`",
        "masalan `listen:` bilan boshlang",
    ),
    "unknown": ("неизвестно", "noma’lum"),
    "cannot be read: {why}": ("не читается: {why}", "o‘qib bo‘lmaydi: {why}"),
    "refers to itself": ("ссылается само на себя", "o‘z-o‘ziga havola qiladi"),
    "write the value out": ("запишите значение полностью", "qiymatni to‘liq yozing"),
    "is nested too deeply": ("слишком много уровней", "ichma-ichlik juda chuqur"),
    "see docs/settings.md for its form": (
        "его вид описан в docs/settings.md",
        "uning shakli docs/settings.md da",
    ),
    "remove it here or in line {first}": (
        "уберите здесь или в строке {first}",
        "shu yerdan yoki {first}-qatordan olib tashlang",
    ),
    "has a YAML tag": ("содержит тег YAML", "YAML tegi bor"),
    "remove the `!…` in front of the value": (
        "уберите `!…` перед значением",
        "qiymat oldidagi `!…` ni olib tashlang",
    ),
    "has a key that is no word": (
        "есть ключ, который не является словом",
        "so‘z bo‘lmagan kalit bor",
    ),
    "write `key: value`": ("пишите `key: value`", "`key: value` deb yozing"),
    "is given twice": ("задано дважды", "ikki marta berilgan"),
}
