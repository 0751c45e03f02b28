# METADATA
# title: The spelling of a JSON-RPC message
# description: >-
#   Some servers, all that use Go's encoding/json, take Name for name, and of both the last: what they do is not what was
#   judged. To go through the keys of a message would be to read all of it: its id and its arguments would be in the key
#   of every cached answer. So each spelling is asked for by itself. For s there is also ſ (U+017F), which Go takes for
#   it; what it takes for k (U+212A) does not matter, as no name here has one.
package envoy.spelling

# METADATA
# title: What is judged of the message is there in small letters only
# description: But notifications itself, which has 12,287 other spellings, is not looked for.
plain if {
	plain_message(0)
	plain_params(0)
	plain_reference(0)
	not respelled_notifications(0)
}

# There is no id here and no argument, so that its keys may be gone through.
respelled_notifications(_) if {
	some key, _ in input.parsed_body.params.notifications
	key != "resourceSubscriptions"
	replace(lower(key), "ſ", "s") == "resourcesubscriptions"
}

plain_message(_) if {
	not input.parsed_body.METHOD
	not input.parsed_body.METHOd
	not input.parsed_body.METHoD
	not input.parsed_body.METHod
	not input.parsed_body.METhOD
	not input.parsed_body.METhOd
	not input.parsed_body.METhoD
	not input.parsed_body.METhod
	not input.parsed_body.MEtHOD
	not input.parsed_body.MEtHOd
	not input.parsed_body.MEtHoD
	not input.parsed_body.MEtHod
	not input.parsed_body.MEthOD
	not input.parsed_body.MEthOd
	not input.parsed_body.MEthoD
	not input.parsed_body.MEthod
	not input.parsed_body.MeTHOD
	not input.parsed_body.MeTHOd
	not input.parsed_body.MeTHoD
	not input.parsed_body.MeTHod
	not input.parsed_body.MeThOD
	not input.parsed_body.MeThOd
	not input.parsed_body.MeThoD
	not input.parsed_body.MeThod
	not input.parsed_body.MetHOD
	not input.parsed_body.MetHOd
	not input.parsed_body.MetHoD
	not input.parsed_body.MetHod
	not input.parsed_body.MethOD
	not input.parsed_body.MethOd
	not input.parsed_body.MethoD
	not input.parsed_body.Method
	not input.parsed_body.mETHOD
	not input.parsed_body.mETHOd
	not input.parsed_body.mETHoD
	not input.parsed_body.mETHod
	not input.parsed_body.mEThOD
	not input.parsed_body.mEThOd
	not input.parsed_body.mEThoD
	not input.parsed_body.mEThod
	not input.parsed_body.mEtHOD
	not input.parsed_body.mEtHOd
	not input.parsed_body.mEtHoD
	not input.parsed_body.mEtHod
	not input.parsed_body.mEthOD
	not input.parsed_body.mEthOd
	not input.parsed_body.mEthoD
	not input.parsed_body.mEthod
	not input.parsed_body.meTHOD
	not input.parsed_body.meTHOd
	not input.parsed_body.meTHoD
	not input.parsed_body.meTHod
	not input.parsed_body.meThOD
	not input.parsed_body.meThOd
	not input.parsed_body.meThoD
	not input.parsed_body.meThod
	not input.parsed_body.metHOD
	not input.parsed_body.metHOd
	not input.parsed_body.metHoD
	not input.parsed_body.metHod
	not input.parsed_body.methOD
	not input.parsed_body.methOd
	not input.parsed_body.methoD
	not input.parsed_body.PARAMS
	not input.parsed_body.PARAMs
	not input.parsed_body["PARAMſ"]
	not input.parsed_body.PARAmS
	not input.parsed_body.PARAms
	not input.parsed_body["PARAmſ"]
	not input.parsed_body.PARaMS
	not input.parsed_body.PARaMs
	not input.parsed_body["PARaMſ"]
	not input.parsed_body.PARamS
	not input.parsed_body.PARams
	not input.parsed_body["PARamſ"]
	not input.parsed_body.PArAMS
	not input.parsed_body.PArAMs
	not input.parsed_body["PArAMſ"]
	not input.parsed_body.PArAmS
	not input.parsed_body.PArAms
	not input.parsed_body["PArAmſ"]
	not input.parsed_body.PAraMS
	not input.parsed_body.PAraMs
	not input.parsed_body["PAraMſ"]
	not input.parsed_body.PAramS
	not input.parsed_body.PArams
	not input.parsed_body["PAramſ"]
	not input.parsed_body.PaRAMS
	not input.parsed_body.PaRAMs
	not input.parsed_body["PaRAMſ"]
	not input.parsed_body.PaRAmS
	not input.parsed_body.PaRAms
	not input.parsed_body["PaRAmſ"]
	not input.parsed_body.PaRaMS
	not input.parsed_body.PaRaMs
	not input.parsed_body["PaRaMſ"]
	not input.parsed_body.PaRamS
	not input.parsed_body.PaRams
	not input.parsed_body["PaRamſ"]
	not input.parsed_body.ParAMS
	not input.parsed_body.ParAMs
	not input.parsed_body["ParAMſ"]
	not input.parsed_body.ParAmS
	not input.parsed_body.ParAms
	not input.parsed_body["ParAmſ"]
	not input.parsed_body.ParaMS
	not input.parsed_body.ParaMs
	not input.parsed_body["ParaMſ"]
	not input.parsed_body.ParamS
	not input.parsed_body.Params
	not input.parsed_body["Paramſ"]
	not input.parsed_body.pARAMS
	not input.parsed_body.pARAMs
	not input.parsed_body["pARAMſ"]
	not input.parsed_body.pARAmS
	not input.parsed_body.pARAms
	not input.parsed_body["pARAmſ"]
	not input.parsed_body.pARaMS
	not input.parsed_body.pARaMs
	not input.parsed_body["pARaMſ"]
	not input.parsed_body.pARamS
	not input.parsed_body.pARams
	not input.parsed_body["pARamſ"]
	not input.parsed_body.pArAMS
	not input.parsed_body.pArAMs
	not input.parsed_body["pArAMſ"]
	not input.parsed_body.pArAmS
	not input.parsed_body.pArAms
	not input.parsed_body["pArAmſ"]
	not input.parsed_body.pAraMS
	not input.parsed_body.pAraMs
	not input.parsed_body["pAraMſ"]
	not input.parsed_body.pAramS
	not input.parsed_body.pArams
	not input.parsed_body["pAramſ"]
	not input.parsed_body.paRAMS
	not input.parsed_body.paRAMs
	not input.parsed_body["paRAMſ"]
	not input.parsed_body.paRAmS
	not input.parsed_body.paRAms
	not input.parsed_body["paRAmſ"]
	not input.parsed_body.paRaMS
	not input.parsed_body.paRaMs
	not input.parsed_body["paRaMſ"]
	not input.parsed_body.paRamS
	not input.parsed_body.paRams
	not input.parsed_body["paRamſ"]
	not input.parsed_body.parAMS
	not input.parsed_body.parAMs
	not input.parsed_body["parAMſ"]
	not input.parsed_body.parAmS
	not input.parsed_body.parAms
	not input.parsed_body["parAmſ"]
	not input.parsed_body.paraMS
	not input.parsed_body.paraMs
	not input.parsed_body["paraMſ"]
	not input.parsed_body.paramS
	not input.parsed_body["paramſ"]
}

plain_params(_) if {
	not input.parsed_body.params.NAME
	not input.parsed_body.params.NAMe
	not input.parsed_body.params.NAmE
	not input.parsed_body.params.NAme
	not input.parsed_body.params.NaME
	not input.parsed_body.params.NaMe
	not input.parsed_body.params.NamE
	not input.parsed_body.params.Name
	not input.parsed_body.params.nAME
	not input.parsed_body.params.nAMe
	not input.parsed_body.params.nAmE
	not input.parsed_body.params.nAme
	not input.parsed_body.params.naME
	not input.parsed_body.params.naMe
	not input.parsed_body.params.namE
	not input.parsed_body.params.URI
	not input.parsed_body.params.URi
	not input.parsed_body.params.UrI
	not input.parsed_body.params.Uri
	not input.parsed_body.params.uRI
	not input.parsed_body.params.uRi
	not input.parsed_body.params.urI
	not input.parsed_body.params.REF
	not input.parsed_body.params.REf
	not input.parsed_body.params.ReF
	not input.parsed_body.params.Ref
	not input.parsed_body.params.rEF
	not input.parsed_body.params.rEf
	not input.parsed_body.params.reF
}

# Without a type nothing is completed.
plain_reference(_) if not input.parsed_body.params.ref.type

else if {
	not input.parsed_body.params.ref.TYPE
	not input.parsed_body.params.ref.TYPe
	not input.parsed_body.params.ref.TYpE
	not input.parsed_body.params.ref.TYpe
	not input.parsed_body.params.ref.TyPE
	not input.parsed_body.params.ref.TyPe
	not input.parsed_body.params.ref.TypE
	not input.parsed_body.params.ref.Type
	not input.parsed_body.params.ref.tYPE
	not input.parsed_body.params.ref.tYPe
	not input.parsed_body.params.ref.tYpE
	not input.parsed_body.params.ref.tYpe
	not input.parsed_body.params.ref.tyPE
	not input.parsed_body.params.ref.tyPe
	not input.parsed_body.params.ref.typE
	not input.parsed_body.params.ref.NAME
	not input.parsed_body.params.ref.NAMe
	not input.parsed_body.params.ref.NAmE
	not input.parsed_body.params.ref.NAme
	not input.parsed_body.params.ref.NaME
	not input.parsed_body.params.ref.NaMe
	not input.parsed_body.params.ref.NamE
	not input.parsed_body.params.ref.Name
	not input.parsed_body.params.ref.nAME
	not input.parsed_body.params.ref.nAMe
	not input.parsed_body.params.ref.nAmE
	not input.parsed_body.params.ref.nAme
	not input.parsed_body.params.ref.naME
	not input.parsed_body.params.ref.naMe
	not input.parsed_body.params.ref.namE
	not input.parsed_body.params.ref.URI
	not input.parsed_body.params.ref.URi
	not input.parsed_body.params.ref.UrI
	not input.parsed_body.params.ref.Uri
	not input.parsed_body.params.ref.uRI
	not input.parsed_body.params.ref.uRi
	not input.parsed_body.params.ref.urI
}
