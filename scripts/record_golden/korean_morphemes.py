"""Record the morphemes that mecab-ko finds in Korean texts, for packages/gpt-sovits-mlx/tests/goldens/text.

    uv run --no-project --python 3.11 --with python-mecab-ko==1.3.7 --with python-mecab-ko-dic==2.1.1.post2 \
        --with mecab-python3==1.0.12 python scripts/record_golden/korean_morphemes.py

python-mecab-ko has wheels up to Python 3.12. The texts are random rows of words, particles and endings, written apart
and together. MeCab itself, which knows no penalties for spaces, is asked too: of half of the texts it finds others.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import MeCab
import mecab
import mecab_ko_dic

OUT = Path("packages/gpt-sovits-mlx/tests/goldens/text/korean_morphemes.json")
SEED, KEPT = 14, 80  # of each kind

STEMS, PARTICLES, ENDINGS, OTHERS = (
    line.split()
    for line in (
        "사람 나라 학교 선생님 의사 사과 물 국 밥 값 닭 꽃 길 말 눈 손 집 책 시간 오늘 내일 아침 저녁 서울 대한민국 국민 법률 "
        "나 너 우리 그 이 저 것 수 데 때 뿐 만큼 먹 가 오 보 하 되 있 없 같 좋 많 안 신 넘 굶 읽 앉 듣 걷 만들 예쁘 아름답 뜨겁",
        "은 는 이 가 을 를 의 에 에서 에게 와 과 도 만 로 으로 부터 까지 보다 처럼 나 랑 밖에 마다",
        "다 고 지 니 네 면 서 요 었다 았다 겠다 습니다 ㅂ니다 어요 아요 는 은 을 ㄹ 던 게 도록 려고 지만 으니까 자 라",
        "3개 12명 20살 100원 5월 AI OK . , ! ? … ㅋㅋ ( )",
    )
)


def text(draw: random.Random) -> str:
    """A random text of 3 to 12 pieces."""
    pieces = []
    for _ in range(draw.randint(3, 12)):
        kind = draw.choices([STEMS, PARTICLES, ENDINGS, OTHERS], [5, 3, 3, 1])[0]
        pieces.append(draw.choice(kind) + draw.choice(["", " ", " ", "  "] if kind is OTHERS else ["", " "]))
    return "".join(pieces).strip()


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT)
    out = parser.parse_args().out
    reference, plain = mecab.MeCab(), MeCab.Tagger(f'-r /dev/null -d "{mecab_ko_dic.dictionary_path}"')
    draw = random.Random(SEED)
    kept: dict[bool, list[tuple[str, list[tuple[str, str]]]]] = {True: [], False: []}  # by whether MeCab finds the same
    while min(map(len, kept.values())) < KEPT:
        candidate = text(draw)
        found = reference.pos(candidate)
        lines = [line.split("\t") for line in plain.parse(candidate).splitlines()[:-1]]
        group = kept[found == [(surface, feature.split(",")[0]) for surface, feature in lines]]
        if len(group) < KEPT:
            group.append((candidate, found))
    rows = [[*row, "mecab" if same else "mecab-ko alone"] for same, group in kept.items() for row in group]
    out.write_text("[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
