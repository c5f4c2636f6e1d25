"""Sentences of `audit verify`."""

from typing import Final

TABLE: Final = {
    # Faults of a line.
    "changed": ("изменено", "o‘zgartirilgan"),
    "removed": ("удалено", "o‘chirilgan"),
    "swapped": ("переставлено", "o‘rni almashgan"),
    "torn": ("обрыв", "uzilgan"),
    "gap": ("пропуск между файлами", "fayllar orasida bo‘shliq"),
    # Details of faults.
    "record {seq} is not the one that the gateway has noted": (
        "запись {seq} — не та, которую отметил шлюз",
        "{seq}-yozuv shlyuz qayd etgan yozuv emas",
    ),
    "the gateway has written records up to {seq}; those after {last} are gone": (
        "шлюз сделал записи по {seq}-ю; те, что после {last}-й, исчезли",
        "shlyuz {seq}-yozuvgacha yozgan; {last} dan keyingilari yo‘qolgan",
    ),
    "its content does not match its hash": (
        "содержимое не соответствует хешу",
        "mazmuni xeshiga mos emas",
    ),
    "half a line at the end: the gateway was cut off; its next start reports it": (
        "в конце половина строки: работу шлюза прервали; он отметит это при следующем запуске",
        (
            "oxirida yarim qator: shlyuz ishi uzilib qolgan; u buni keyingi ishga tushishda qayd "
            "etadi"
        ),
    ),
    "it is no record of a chain": ("это не запись цепочки", "bu zanjir yozuvi emas"),
    "it is record {seq}; those before it are missing": (
        "это запись {seq}; предыдущих нет",
        "bu {seq}-yozuv; undan oldingilari yo‘q",
    ),
    "record {seq} does not follow the record before it: one was exchanged": (
        "запись {seq} не продолжает предыдущую: одну из них подменили",
        "{seq}-yozuv oldingisining davomi emas: ulardan biri almashtirilgan",
    ),
    "it is record {seq} where record {awaited} belongs": (
        "это запись {seq} на месте записи {awaited}",
        "bu {awaited}-yozuv o‘rnidagi {seq}-yozuv",
    ),
    "{here}, which has been before": ("{here}, а та уже была", "{here}, u esa avval bor edi"),
    "{here}, which is at {place}": ("{here}, а та стоит в {place}", "{here}, u esa {place} da"),
    "record {seq} is missing before it": (
        "перед ней нет записи {seq}",
        "undan oldin {seq}-yozuv yo‘q",
    ),
    "records {first} to {last} are missing before it": (
        "перед ней нет записей с {first} по {last}",
        "undan oldin {first} dan {last} gacha yozuvlar yo‘q",
    ),
    # Summary.
    "{place}: half a line, reported by the gateway after it was cut off": (
        "{place}: половина строки; работу шлюза прервали, и он это отметил",
        "{place}: yarim qator; shlyuz ishi uzilib qolgan va u buni qayd etgan",
    ),
    "There is no record.": ("Записей нет.", "Yozuvlar yo‘q."),
    "The chain begins with record {seq}; older files were not given.": (
        "Цепочка начинается с записи {seq}; более старые файлы не указаны.",
        "Zanjir {seq}-yozuvdan boshlanadi; eskiroq fayllar ko‘rsatilmagan.",
    ),
    "is whole": ("цела", "butun"),
    "holds": ("не нарушена", "buzilmagan"),
    "The chain of {count} records {state}; record {seq} has hash {digest}.": (
        "Цепочка из записей ({count}) {state}; хеш записи {seq}: {digest}.",
        "{count} ta yozuvdan iborat zanjir {state}; {seq}-yozuvning xeshi: {digest}.",
    ),
    (
        "Its end is unproven: no .NAME.chain of the gateway lies beside the files, so later "
        "records may be missing. Compare {seq} with the last number known elsewhere."
    ): (
        (
            "Конец цепочки не подтверждён: рядом с файлами нет файла шлюза `.NAME.chain`, поэтому "
            "более поздних записей может не хватать. Сравните {seq} с последним номером, который "
            "известен из другого места."
        ),
        (
            "Zanjir oxiri tasdiqlanmagan: fayllar yonida shlyuzning `.NAME.chain` fayli yo‘q, "
            "shuning uchun keyingi yozuvlar yetishmasligi mumkin. {seq} ni boshqa joydan ma’lum "
            "bo‘lgan oxirgi raqam bilan solishtiring."
        ),
    ),
}
