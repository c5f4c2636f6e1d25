"""Texts that explain why an entry is not delivered, and what an operator can do about it."""

from __future__ import annotations

from typing import Final

from gateway.admin.status.remedies import REMEDIES

_EN: Final[dict[str, str]] = {
    "why:turn": "It waits for its turn: for the line, or for earlier writes of the same patient.",
    "why:line": "The platform could not be reached.",
    "why:broken": "The connection broke, or there was no answer in time.",
    "why:busy": "The platform asked to wait.",
    "why:token": "There was no token that the platform takes.",
    "why:strange": "Something else than the platform answered.",
    "why:expired": "It could not be delivered within `outbox.max_age`.",
    "why:internal": "The gateway could not process it.",
    "why:content": "The platform refused the content ({status}).",
    "why:rights": "The platform does not allow it ({status}).",
    "why:gone": "What it refers to is not there ({status}).",
    "why:conflict": "The platform has another version of it ({status}).",
    "why:refused": "The platform refused it ({status}).",
    "why:trouble": "The platform failed while it had this write ({status}).",
    "why:other": "It was not delivered: {cause}.",
    "todo:waiting": "Nothing. It is delivered by itself, in its order.",
    "todo:unclear": "Look at the platform whether the write is there. If it is, drop it here; if "
    "not, send it once more.",
    "todo:expired": "Mend the line, then send it once more. If the caller has entered it anew, "
    "drop it.",
    "todo:content": "Have it corrected and entered anew in the system that sent it, and drop it "
    "here: sent once more it would be refused again.",
    "todo:rights": "Ask the platform's support for the permission, then send it once more.",
    "todo:gone": "See whether an earlier write is missing: deliver that first, then send this once "
    "more. Else have it entered anew, and drop it here.",
    "todo:conflict": "Somebody has changed it meanwhile. Have the present version looked at and "
    "the change entered anew, and drop it here.",
    "todo:failed": "Mend the cause, then send it once more; or have it entered anew, and drop it "
    "here.",
}
_RU: Final[dict[str, str]] = {
    "why:turn": "Ждёт своей очереди: связи или более ранних записей о том же пациенте.",
    "why:line": "Платформа была недоступна.",
    "why:broken": "Связь оборвалась, или ответ не пришёл вовремя.",
    "why:busy": "Платформа попросила подождать.",
    "why:token": "Не было токена, который платформа принимает.",
    "why:strange": "Ответила не платформа, а что-то другое.",
    "why:expired": "Не удалось доставить за время `outbox.max_age`.",
    "why:internal": "Шлюз не смог её обработать.",
    "why:content": "Платформа не приняла содержимое ({status}).",
    "why:rights": "Платформа этого не разрешает ({status}).",
    "why:gone": "Того, на что она ссылается, на платформе нет ({status}).",
    "why:conflict": "На платформе уже другая версия ({status}).",
    "why:refused": "Платформа отклонила её ({status}).",
    "why:trouble": "На этой записи у платформы произошёл сбой ({status}).",
    "why:other": "Не доставлена: {cause}.",
    "todo:waiting": "Ничего. Она будет доставлена сама, в своём порядке.",
    "todo:unclear": "Посмотрите на платформе, есть ли там эта запись. Если есть, снимите её здесь; "
    "если нет, отправьте ещё раз.",
    "todo:expired": "Восстановите связь и отправьте ещё раз. Если её уже ввели заново, снимите.",
    "todo:content": "Её нужно исправить и ввести заново в системе, которая её отправила, а здесь "
    "снять: повторно её отклонят снова.",
    "todo:rights": "Запросите разрешение у службы поддержки платформы, затем отправьте ещё раз.",
    "todo:gone": "Проверьте, не пропала ли более ранняя запись: сначала доставьте её, затем "
    "отправьте эту ещё раз. Иначе её нужно ввести заново, а здесь снять.",
    "todo:conflict": "За это время её кто-то изменил. Пусть посмотрят нынешнюю версию и внесут "
    "изменение заново, а здесь снимите.",
    "todo:failed": "Устраните причину и отправьте ещё раз; или пусть её введут заново, а здесь "
    "снимите.",
}
_UZ: Final[dict[str, str]] = {
    "why:turn": "O‘z navbatini kutmoqda: aloqani yoki o‘sha bemorning oldingi yozuvlarini.",
    "why:line": "Platformaga ulanib bo‘lmadi.",
    "why:broken": "Aloqa uzildi yoki javob o‘z vaqtida kelmadi.",
    "why:busy": "Platforma kutishni so‘radi.",
    "why:token": "Platforma qabul qiladigan token bo‘lmadi.",
    "why:strange": "Platforma emas, boshqa narsa javob berdi.",
    "why:expired": "`outbox.max_age` muddatida yetkazib bo‘lmadi.",
    "why:internal": "Shlyuz uni qayta ishlay olmadi.",
    "why:content": "Platforma mazmunini qabul qilmadi ({status}).",
    "why:rights": "Platforma bunga ruxsat bermaydi ({status}).",
    "why:gone": "U ishora qilgan narsa platformada yo‘q ({status}).",
    "why:conflict": "Platformada uning boshqa versiyasi bor ({status}).",
    "why:refused": "Platforma uni rad etdi ({status}).",
    "why:trouble": "Shu yozuv paytida platformada nosozlik yuz berdi ({status}).",
    "why:other": "Yetkazilmadi: {cause}.",
    "todo:waiting": "Hech narsa. U o‘z tartibida o‘zi yetkaziladi.",
    "todo:unclear": "Yozuv platformada bor-yo‘qligini ko‘ring. Bor bo‘lsa, uni bu yerdan olib "
    "tashlang; yo‘q bo‘lsa, qayta jo‘nating.",
    "todo:expired": "Aloqani tiklang va qayta jo‘nating. Tizimda qaytadan kiritilgan bo‘lsa, olib "
    "tashlang.",
    "todo:content": "Uni yuborgan tizimda to‘g‘rilab, qaytadan kiritish, bu yerdan esa olib "
    "tashlash kerak: qayta jo‘natilsa, yana rad etiladi.",
    "todo:rights": "Platforma yordam xizmatidan ruxsat so‘rang, so‘ng qayta jo‘nating.",
    "todo:gone": "Oldingi yozuv yetishmayotgan-yetishmayotganini ko‘ring: avval uni yetkazing, "
    "so‘ng buni qayta jo‘nating. Aks holda qaytadan kiritilsin, bu yerdan olib tashlang.",
    "todo:conflict": "Bu orada uni kimdir o‘zgartirgan. Hozirgi versiyani ko‘rib, o‘zgarishni "
    "qaytadan kiritishsin, bu yerdan esa olib tashlang.",
    "todo:failed": "Sababini bartaraf eting va qayta jo‘nating; yoki qaytadan kiritilsin, bu "
    "yerdan esa olib tashlang.",
}

ENTRY_CAUSES: Final[dict[str, dict[str, str]]] = {"en": _EN, "ru": _RU, "uz": _UZ}

_OF_STATUS: Final = {
    **dict.fromkeys((400, 413, 415, 422), "content"),
    **dict.fromkeys((401, 403), "rights"),
    **dict.fromkeys((404, 410), "gone"),
    **dict.fromkeys((409, 412), "conflict"),
}
_OF_REASON: Final = {
    "": "turn",
    **dict.fromkeys(("upstream-unreachable", "circuit-open", "upstream-tls"), "line"),
    **dict.fromkeys(("upstream-failed", "upstream-timeout"), "broken"),
    **dict.fromkeys(("upstream-busy", "rate-limited"), "busy"),
    **dict.fromkeys(("sso-unavailable", "token-refused", "token-rejected"), "token"),
    **dict.fromkeys(("upstream-non-fhir", "upstream-redirect"), "strange"),
    "expired": "expired",
    "internal": "internal",
}


def explain_cause(cause: str, language: str) -> str:
    """Return the explanation of an entry's `cause`."""
    kind, status = _cause_kind(cause)
    return ENTRY_CAUSES[language][f"why:{kind}"].format(status=status, cause=cause)


def cause_remedy(state: str, cause: str, language: str) -> str:
    """Return what an operator should do about an entry in `state`."""
    if state == "waiting" and cause in REMEDIES[language]:
        # An open circuit is a consequence: the remedy is that of an unreachable platform.
        return REMEDIES[language]["upstream-unreachable" if cause == "circuit-open" else cause]
    words, kind = ENTRY_CAUSES[language], _cause_kind(cause)[0]
    if state == "failed":
        return words.get(f"todo:{kind}", words["todo:failed"])
    return words["todo:unclear" if state == "unclear" else "todo:waiting"]


def _cause_kind(cause: str) -> tuple[str, str]:
    """Return the kind of a cause, and the status by which the platform refused it, or ""."""
    word, _, status = cause.partition(" ")
    if word != "platform-status" or len(status) != 3 or not status.isdecimal():
        return _OF_REASON.get(cause, "other"), ""
    return _OF_STATUS.get(int(status), "refused" if int(status) < 500 else "trouble"), status
