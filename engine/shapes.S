/* Configuration files of the built-in shapes, embedded; read by engine/model_config.c. */
	.macro embed name, path
	.global model_shape_\name
	.global model_shape_\name\()_end
model_shape_\name:
	.incbin "\path"
model_shape_\name\()_end:
	.byte 0
	.endm

	.section .rodata
	embed 2b_stream, "engine/shapes/2b/stream.json"
	embed 2b_dit, "engine/shapes/2b/dit.json"
	embed 2b_vae, "engine/shapes/2b/vae.json"
	embed 2b_text, "engine/shapes/2b/text_encoder.json"
	embed demo_stream, "models/demo/stream.json"
	embed demo_dit, "models/demo/dit/config.json"
	embed demo_vae, "models/demo/vae/config.json"
	embed demo_text, "models/demo/text_encoder/config.json"

	.section .note.GNU-stack, "", %progbits
