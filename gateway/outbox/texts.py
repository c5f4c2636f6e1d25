"""The texts of the outbox for the user of the calling system, in three languages."""

from __future__ import annotations

from typing import Final

TEXTS: Final[dict[str, dict[str, str]]] = {
    "en": {
        "queued": (
            "The platform cannot take this write now. The gateway has stored it safely and "
            "delivers it once, as soon as it can. Do not send it again; the address in "
            "Content-Location tells how it ended."
        ),
        "waiting": (
            "This write is stored safely and waits for its delivery. Do not send it again."
        ),
        "sending": "This write is being delivered. Do not send it again.",
        "delivered": "This write was delivered already and can no longer be cancelled.",
        "failed": (
            "The platform refused this write: nothing was saved. Correct it, cancel this entry "
            "and send it again."
        ),
        "expired": (
            "This write could not be delivered for so long that the gateway has given it up. "
            "Ask the gateway's operator, who can still deliver it."
        ),
        "unclear": (
            "It is not known whether the platform has saved this write. Find and read the record "
            "before you send it again. The gateway's operator can deliver it or drop it."
        ),
        "locked": (
            "This write may have reached the platform and cannot be cancelled now. Ask again "
            "later how it ended."
        ),
        "cancelled": "This write was cancelled by its sender and was not delivered.",
        "cancelling": "This write is cancelled and will not be delivered.",
        "dropped": "The gateway's operator has given this write up.",
    },
    "ru": {
        "queued": (
            "Платформа сейчас не может принять эту запись. Шлюз надёжно сохранил её и доставит "
            "один раз, как только сможет. Не отправляйте её снова; чем дело кончилось, можно "
            "узнать по адресу из Content-Location."
        ),
        "waiting": "Эта запись надёжно сохранена и ждёт доставки. Не отправляйте её снова.",
        "sending": "Эта запись сейчас доставляется. Не отправляйте её снова.",
        "delivered": "Эта запись уже доставлена, отменить её нельзя.",
        "failed": (
            "Платформа отклонила эту запись: ничего не сохранено. Отмените эту запись, исправьте "
            "данные и отправьте их снова."
        ),
        "expired": (
            "Эту запись не удавалось доставить так долго, что шлюз прекратил попытки. Обратитесь "
            "к администратору шлюза: он ещё может её доставить."
        ),
        "unclear": (
            "Неизвестно, сохранила ли платформа эту запись. Прежде чем отправлять её снова, "
            "найдите её на платформе и прочитайте. Администратор шлюза может доставить её или "
            "снять с очереди."
        ),
        "locked": (
            "Эта запись могла дойти до платформы, сейчас её нельзя отменить. Узнайте позже, чем "
            "дело кончилось."
        ),
        "cancelled": "Эта запись отменена отправителем и не доставлена.",
        "cancelling": "Эта запись отменена и не будет доставлена.",
        "dropped": "Администратор шлюза снял эту запись с очереди.",
    },
    "uz": {
        "queued": (
            "Platforma bu yozuvni hozir qabul qila olmaydi. Shlyuz uni ishonchli saqladi va imkon "
            "bo‘lishi bilan bir marta yetkazadi. Uni qayta yubormang; natijani Content-Location "
            "dagi manzil aytadi."
        ),
        "waiting": (
            "Bu yozuv ishonchli saqlangan va yetkazilishini kutmoqda. Uni qayta yubormang."
        ),
        "sending": "Bu yozuv hozir yetkazilmoqda. Uni qayta yubormang.",
        "delivered": "Bu yozuv allaqachon yetkazilgan, uni bekor qilib bo‘lmaydi.",
        "failed": (
            "Platforma bu yozuvni rad etdi: hech narsa saqlanmadi. Bu yozuvni bekor qiling, "
            "ma’lumotlarni tuzating va ularni yana yuboring."
        ),
        "expired": (
            "Bu yozuvni uzoq vaqt yetkazib bo‘lmadi, shuning uchun shlyuz urinishni to‘xtatdi. "
            "Shlyuz administratoriga murojaat qiling: u hali ham yetkaza oladi."
        ),
        "unclear": (
            "Platforma bu yozuvni saqlagan-saqlamagani noma’lum. Qayta yuborishdan oldin uni "
            "platformada topib, o‘qib ko‘ring. Shlyuz administratori uni yetkazishi yoki navbatdan "
            "olib tashlashi mumkin."
        ),
        "locked": (
            "Bu yozuv platformaga yetib borgan bo‘lishi mumkin, hozir uni bekor qilib bo‘lmaydi. "
            "Natijani keyinroq so‘rang."
        ),
        "cancelled": "Bu yozuvni yuboruvchi bekor qilgan, u yetkazilmagan.",
        "cancelling": "Bu yozuv bekor qilindi va yetkazilmaydi.",
        "dropped": "Shlyuz administratori bu yozuvni navbatdan olib tashlagan.",
    },
}


def outbox_text(word: str, language: str) -> str:
    """Return the text for `word`, in English where the language is not supported."""
    return TEXTS.get(language, TEXTS["en"])[word]
