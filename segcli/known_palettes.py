"""Class tables of benchmarks and palettes that have a name, as their makers published them."""

from collections.abc import Callable

from segcli.classes import ClassEntry, ClassTable
from segcli.colors import OKABE_ITO, Color, color_of, distinct_colors

MOST = 254
"""Classes of palettes without names, so that 255 stays free."""

# Everingham et al. (2010), "The PASCAL Visual Object Classes (VOC) Challenge".
VOC = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person "
    "pottedplant sheep sofa train tvmonitor"
)
VOC_BORDER: Color = (224, 224, 192)

# Cordts et al. (2016), "The Cityscapes Dataset for Semantic Urban Scene Understanding"; values are its train ids.
CITYSCAPES = """
road 804080, sidewalk F423E8, building 464646, wall 66669C, fence BE9999, pole 999999, traffic light FAAA1E,
traffic sign DCDC00, vegetation 6B8E23, terrain 98FB98, sky 4682B4, person DC143C, rider FF0000, car 00008E,
truck 000046, bus 003C64, train 005064, motorcycle 0000E6, bicycle 770B20
"""

# Brostow, Fauqueur and Cipolla (2009), in the eleven classes of Badrinarayanan, Kendall and Cipolla (2017), "SegNet".
CAMVID = """
sky 808080, building 800000, pole C0C080, road 804080, pavement 3C28DE, tree 808000, sign C08080, fence 404080,
car 400080, pedestrian 404000, bicyclist 0080C0
"""

# Tableau's twenty, as matplotlib has them.
TAB20 = """
1F77B4, AEC7E8, FF7F0E, FFBB78, 2CA02C, 98DF8A, D62728, FF9896, 9467BD, C5B0D5, 8C564B, C49C94, E377C2, F7B6D2, 7F7F7F,
C7C7C7, BCBD22, DBDB8D, 17BECF, 9EDAE5
"""

# Zhou et al. (2017), "Scene Parsing through ADE20K Dataset": 1 to 150 in its masks, 0 without a label.
ADE20K = """
wall 787878, building B47878, sky 06E6E6, floor 503232, tree 04C803, ceiling 787850, road 8C8C8C, bed CC05FF,
windowpane E6E6E6, grass 04FA07, cabinet E005FF, sidewalk EBFF07, person 96053D, earth 787846, door 08FF33,
table FF0652, mountain 8FFF8C, plant CCFF04, curtain FF3307, chair CC4603, car 0066C8, water 3DE6FA, painting FF0633,
sofa 0B66FF, shelf FF0747, house FF09E0, sea 0907E6, mirror DCDCDC, rug FF095C, field 7009FF, armchair 08FFD6,
seat 07FFE0, fence FFB806, desk 0AFF47, rock FF290A, wardrobe 07FFFF, lamp E0FF08, bathtub 6608FF, railing FF3D06,
cushion FFC207, base FF7A08, box 00FF14, column FF0829, signboard FF0599, chest of drawers 0633FF, counter EB0CFF,
sand A09614, sink 00A3FF, skyscraper 8C8C8C, fireplace FA0A0F, refrigerator 14FF00, grandstand 1FFF00, path FF1F00,
stairs FFE000, runway 99FF00, case 0000FF, pool table FF4700, pillow 00EBFF, screen door 00ADFF, stairway 1F00FF,
river 0BC8C8, bridge FF5200, bookcase 00FFF5, blind 003DFF, coffee table 00FF70, toilet 00FF85, flower FF0000,
book FFA300, hill FF6600, bench C2FF00, countertop 008FFF, stove 33FF00, palm 0052FF, kitchen island 00FF29,
computer 00FFAD, swivel chair 0A00FF, boat ADFF00, bar 00FF99, arcade machine FF5C00, hovel FF00FF, bus FF00F5,
towel FF0066, light FFAD00, truck FF0014, tower FFB8B8, chandelier 001FFF, awning 00FF3D, streetlight 0047FF,
booth FF00CC, television receiver 00FFC2, airplane 00FF52, dirt track 000AFF, apparel 0070FF, pole 3300FF,
land 00C2FF, bannister 007AFF, escalator 00FFA3, ottoman FF9900, bottle 00FF0A, buffet FF7000, poster 8FFF00,
stage 5200FF, van A3FF00, ship FFEB00, fountain 08B8AA, conveyer belt 8500FF, canopy 00FF5C, washer B800FF,
plaything FF001F, swimming pool 00B8FF, stool 00D6FF, barrel FF0070, basket 5CFF00, waterfall 00E0FF, tent 70E0FF,
bag 46B8A0, minibike A300FF, cradle 9900FF, oven 47FF00, ball FF00A3, food FFCC00, step FF008F, tank 00FFEB,
trade name 85FF00, microwave FF00EB, pot F500FF, animal FF007A, bicycle FFF500, lake 0ABED4, dishwasher D6FF00,
screen 00CCFF, blanket 1400FF, sculpture FFFF00, hood 0099FF, sconce 0029FF, vase 00FFCC, traffic light 2900FF,
tray 29FF00, ashcan AD00FF, fan 00F5FF, pier 4700FF, crt screen 7A00FF, plate 00FFB8, monitor 005CFF,
bulletin board B8FF00, shower 0085FF, radiator FFD600, glass 19C2C2, clock 66FF00, flag 5C00FF
"""


def _voc() -> ClassTable:
    """The colours of its development kit: three bits of the value at a time, from the highest bit of each band down."""
    entries = []
    for value, name in enumerate(VOC.split()):
        color = [0, 0, 0]
        for step in range(8):
            for band in range(3):
                color[band] |= (value >> 3 * step + band & 1) << 7 - step
        entries.append(ClassEntry(value, name, (color[0], color[1], color[2])))
    return ClassTable(tuple(entries), 255, VOC_BORDER)


def _named(text: str, first: int = 0, ignore: int = 255) -> ClassTable:
    entries = [entry.strip().rpartition(" ") for entry in text.split(",")]
    return ClassTable(
        tuple(ClassEntry(n, name, color_of(f"#{color}")) for n, (name, _, color) in enumerate(entries, start=first)),
        ignore,
        (0, 0, 0),
    )


def _nameless(colors: list[Color]) -> ClassTable:
    return ClassTable(tuple(ClassEntry(n, f"class {n}", color) for n, color in enumerate(colors)))


KNOWN: dict[str, Callable[[], ClassTable]] = {
    "voc": _voc,
    "cityscapes": lambda: _named(CITYSCAPES),
    "camvid": lambda: _named(CAMVID, ignore=11),
    "ade20k": lambda: _named(ADE20K, first=1, ignore=0),
    "okabe-ito": lambda: _nameless(list(OKABE_ITO)),
    "tab20": lambda: _nameless([color_of(f"#{text.strip()}") for text in TAB20.split(",")]),
    "glasbey": lambda: _nameless(distinct_colors(MOST)),
}
"""Palettes by name; `glasbey` are those that classes get when nobody says which."""


def is_nameless(classes: ClassTable) -> bool:
    """Whether a table says colours only."""
    return all(entry.name == f"class {entry.index}" for entry in classes.entries)
