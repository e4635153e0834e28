"""The words that guards look at, in English, German, French, Spanish and Portuguese. Data only, all in lower case."""

from __future__ import annotations

LANGUAGES = ("en", "de", "fr", "es", "pt")


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


STOP: dict[str, frozenset[str]] = {
    "en": _set(
        """
a about am an and any are as at be been but by can could did do does doing done explain for from get had has have having he hello here hi how i if in
is it its just let's lets like may me might must my need of or our please possible shall she should show so some steps tell than thank thanks that the
their them then there these they this those to too us very want was way we were what when where which who why will with would you your
"""
    ),
    "de": _set(
        """
aber als am an auf bei bin bist bitte brauche da danke dann darf das dein deine dem den der des dich die dir doch du eben ein eine einem einen einer
eines er erkläre es für geht gibt habe haben hallo hat hatte hier ich ihm ihn ihr ihre ihren im in ist kann können könnte könnten mal man mein meine
meinem meinen meiner mich mir mit muss möchte müssen oder sag sehr sein sie sind so soll sollte und uns unser unsere vom von wann war waren warum was
weise welche welcher welches wenn wer werden wie will wir wird wo würde zeig zeige zu zum zur über
"""
    ),
    "fr": _set(
        """
a ai alors as au aux avec avez avoir avons besoin bonjour c ce ces cet cette comme comment d dans de des dites dois doit du elle elles en es est
est-ce et explique expliquez faire fait faut faut-il façon ici il ils j je l la le les leur leurs m ma mais me merci mes moi mon montre montrez nos
notre nous on ont ou où par peut peux plaît pour pourquoi pourrais pourrait pourriez pouvez puis qu quand que quel quelle quelles quels qui quoi s se
si sont suis sur svp ta te tes toi ton très tu un une veux vos votre voudrais vous y à étaient était être
"""
    ),
    "es": _set(
        """
a al aquí como con cuál cuáles cuándo cómo de debe debo del dónde e el ella ellas ellos en entonces era eran es esa ese eso esta estar estas este esto
estos estoy está están explica explícame favor forma gracias ha haber hacer hacerlo hago han has hay he hola la las le les lo los manera me mi mis
muestra muy necesito nos nosotros nuestra nuestro o para pero podría podrías por puede pueden puedes puedo que quiero quisiera quién qué se ser si
sobre son soy su sus te tengo tiene tu tus tú u un una unas unos usted y yo él
"""
    ),
    "pt": _set(
        """
a ao aqui as com como consigo da das de deve devo do dos e ela elas ele eles em então era eram essa esse esta estar este estou está estão eu explica
explique favor faz fazer faço forma gostaria há isso isto lhe maneira mas me meu meus mim minha minhas mostre muito na nas no nos nossa nosso nós o
obrigada obrigado oi olá onde os ou para pela pelo pode podem poderia podia por posso pra preciso quais qual quando que quem queria quero quê se ser
seu seus sobre sou sua suas são te tem tenho ter teu tua têm um uma umas uns você vocês à é
"""
    ),
}
"""Words that carry the grammar, politeness or the form of a question. Also how a language is told: see `text.language`."""

NEGATIONS = _set(
    """
arent aucun aucune außer cannot cant couldnt didnt doesnt dont except excepto exceto hasnt havent isnt jamais jamás kein keine keinem keinen keiner
keines nada ne neither nem nenhum nenhuma never ni nicht nichts nie niemals niemand ninguna ninguno ningún no none nor not nothing nunca não ohne pas
rien sans sauf sem shouldnt sin tampoco unless wasnt weder without wont wouldnt
"""
)

_NUMBERS = """
0: zero null cero
2: two zwei deux dos dois duas
3: three drei trois tres três
4: four vier quatre cuatro quatro
5: five fünf cinq cinco
6: six sechs seis
7: seven sieben sept siete sete
8: eight acht huit ocho oito
9: nine neun neuf nueve nove
10: ten zehn dix diez dez
12: twelve zwölf douze doce doze
20: twenty zwanzig vingt veinte vinte
100: hundred hundert cent cien cem
1000: thousand tausend mille mil
first: 1st first erste ersten erster primer primera primero premier première primeiro primeira
second: 2nd zweite zweiten zweiter segundo segunda deuxième
third: 3rd third dritte dritten dritter tercer tercera tercero troisième terceiro terceira
half: half halb halbe hälfte moitié demi mitad medio media metade meio meia
double: double twice doppelt zweimal deuxfois doble dobro
all: all every each alle allen alles jede jeder jedes jeden tous toutes tout toute chaque todos todas todo toda cada
"""
NUMBERS = {word: line.partition(":")[0] for line in _NUMBERS.split("\n") for word in line.partition(":")[2].split()}
"""What a word counts. `one` is left out: it is an article, or no number, too often."""

_OPPOSITES = """
enabl activat aktivier einschalt anschalt activ activer activar ativ habilit
disabl deactivat deaktivier ausschalt abschalt désactiv desactiv desativ inhabilit deshabilit

on ein an allumer encender ligar
off aus éteindre apagar desligar

hinzufüg hinzu ajout agreg añad adicion add adds added adding
remov delet entfern lösch supprim enlev retir elimin borr quit exclu apag

create creat erstell anleg anzuleg crear cria crée créé
delete delet destroy lösch zerstör supprim détrui elimin destru apag exclu

increas erhöh steiger augment aument raise raising
decreas reduc lower verringer senk reduzier rédui diminu reduz baj

open öffn aufmach ouvr ouvert abr abiert
clos schließ zumach geschlossen ferm cerr fech

start begin anfang beginn démarr commenc inici empez começ arranc
stop halt stopp beend anhalt arrêt fin deten par encerr termin end ends ending ended

allow permit erlaub zulass autoris autoriz permet permiti
block forbid deny prohibit verbiet sperr blockier interdi bloqu prohib proib neg

lock sperr verrouill bloque tranc
unlock entsperr entriegel déverrouill desbloque destranc

install installier instal
uninstall deinstallier désinstall desinstal

subscrib abonnier abonn suscrib inscrev assin
unsubscrib abbestell kündig désabonn désinscri desabonn cancel

import importier
export exportier

upload hochlad téléverser subir carreg enviar
download herunterlad télécharger descarg baix

encrypt verschlüssel chiffr cifr encript criptograf
decrypt entschlüssel déchiffr descifr desencript descriptograf

purchas kauf achet achat compr buy buying buys
sell verkauf vend vent

gewinn gagn gan ganh vencer win winning wins
lose verlier perd

accept annehm akzeptier acept aceit
reject refus declin ablehn rechaz rejeit recus

before vor avant antes
after nach après después despues depois

above over über dessus encima sobre acima
below under unter dessous debajo abaixo

more mehr plus más
less fewer weniger moins menos

most max highest largest meist höchst größt maximum máxim maior
least min lowest smallest wenigst niedrigst kleinst minimum mínim menor

with mit avec con com
without ohne sans sin sem

up hoch hinauf haut arriba cima
down runter hinunter bas abajo baixo

left link gauch izquierd esquerd
right recht droit derech direit

public öffentlich públic
private privat privé privad

old alt ancien viej antig
new neu nouve nuev nov

send senden schick verschick envoy enviar mandar
receiv empfang erhalt recev reçoi recib receb

grant gewähr accord conced otorg
revok entzieh widerruf révoqu revoc revog

connect verbind anschließ conect
disconnect trenn déconnect desconect

versteck ausblend cach ocult escond hide hidden hiding
show anzeig einblend affich mostr exib

safe sicher sûr segur
dangerous unsafe gefährlich dangereu peligros perigos insegur

cheap günstig billig pas-cher barat
expensive teuer cher caro

login sign-in anmeld connexion
logout sign-out abmeld déconnexion

income einnahm einkommen revenu ingres receit
expense ausgab dépens gast despes

minimum mindest minimal mínim
maximum höchst maximal máxim

inside innerhalb intérieur dentro
outside außerhalb extérieur fuera fora

early früh tôt temprano cedo
late spät tard tarde

besteh réuss aprob aprov passed passing
fail durchfall échou suspend reprov

resum continu fortsetz weiter reprend reanud
paus unterbrech suspend pausier

advantage vorteil avantag ventaj vantag benefit
disadvantage nachteil inconvénient desventaj desvantag drawback
"""
OPPOSITES = [[side.split() for side in pair.strip().split("\n")] for pair in _OPPOSITES.split("\n\n")]
"""Stems of words that mean the opposite of each other. A stem of up to three letters stands for the whole word only."""

_EXCLUSIVE = """
monday montag lundi lunes segunda-feira
tuesday dienstag mardi martes terça-feira
wednesday mittwoch mercredi miércoles quarta-feira
thursday donnerstag jeudi jueves quinta-feira
friday freitag vendredi viernes sexta-feira
saturday samstag sonnabend samedi sábado
sunday sonntag dimanche domingo

january januar janvier enero janeiro
february februar février febrero fevereiro
march märz mars marzo março
april avril abril
june juni juin junio junho
july juli juillet julio julho
august août agosto
september septembre septiembre setembro
october oktober octobre octubre outubro
november novembre noviembre novembro
december dezember décembre diciembre dezembro

today heute aujourd'hui aujourdhui hoy hoje
tomorrow morgen demain mañana amanhã
yesterday gestern ayer ontem

daily täglich quotidien diario diária diário diariamente
weekly wöchentlich hebdomadaire semanal semanalmente
monthly monatlich mensuel mensuelle mensual mensal mensualmente mensalmente
yearly annual annually jährlich annuel annuelle anual anualmente

day days tag tage tagen jour jours día días dia dias
week weeks woche wochen semaine semaines semana semanas
month months monat monate monaten mois meses mês
year years jahr jahre jahren année années ans año años ano anos
hour hours stunde stunden heure heures hora horas
minute minutes minuten minuto minutos
seconds secondes sekunden segundos

north norden nord norte
south süden sud sul
east osten leste
west westen ouest oeste

why warum wieso weshalb pourquoi porqué por-qué por-que
when wann quand cuándo quando
where wo wohin où dónde onde
who wer qui quién quem

father vater père padre pai
mother mutter mère madre mãe
brother bruder frère hermano irmão
sister schwester sœur soeur hermana irmã
sohn fils hijo filho
daughter tochter fille hija filha

red rot rouge rojo roja vermelho vermelha
green grün vert verte verde
blue blau bleu bleue azul
yellow gelb jaune amarillo amarilla amarelo amarela
black schwarz noir noire negro negra preto preta
white weiß blanc blanche blanco blanca branco branca

car auto wagen voiture coche carro
train zug zugfahrt tren trem comboio
plane flight flug flugzeug avion vol avión vuelo avião voo
bus autobus autobús ônibus

dog hund chien perro cachorro cão
cat katze chat gato gata
horse pferd cheval caballo cavalo

windows
linux
macos mac
android
ios iphone ipad
"""
EXCLUSIVE = [[member.split() for member in group.strip().split("\n")] for group in _EXCLUSIVE.split("\n\n")]
"""Groups of words that exclude each other: two texts that name different members of one group mean different things."""

UNITS = _set(
    """
$ % am bar celsius chf cl cm dollar dollars dólar dólares eur euro euros fahrenheit feet g gb gbp ghz gib h hz inch inches kb kg kib km kmh kw kwh l m
ma mb meilen mg mhz mib miles min ml mm mph ms mv percent pm porciento pound pounds pourcent prozent psi s sec tb tib usd v w £ °c °f €
"""
)

FROM = {
    "en": _set("from"),
    "de": _set("von vom aus"),
    "fr": _set("de depuis du"),
    "es": _set("de desde del"),
    "pt": _set("de desde do da"),
}
TO = {
    "en": _set("to into"),
    "de": _set("nach zu zum zur in"),
    "fr": _set("à vers en au"),
    "es": _set("a hacia al en"),
    "pt": _set("a para ao até em"),
}
"""What stands before the two ends of a direction."""
