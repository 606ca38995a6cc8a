package dev.sprat.student

import ai.onnxruntime.*
import java.nio.*

/** An MLA model and its latent cache of at most [capacity] tokens. Use it from one thread at a time. */
class Student(folder: java.io.File, val capacity: Int = 1024, threads: Int = 4) : AutoCloseable {
    private val env = OrtEnvironment.getEnvironment().apply { setTelemetry(false) }
    private val session = env.createSession(
        folder.resolve("model.onnx").path,
        OrtSession.SessionOptions().apply { setIntraOpNumThreads(threads) }
    )
    private val layers = session.inputNames.count { it.startsWith("past_latent.") }
    private val width = (session.inputInfo.getValue("past_latent.0").info as TensorInfo).shape[1].toInt()
    private val latents = List(layers) {
        ByteBuffer.allocateDirect(4 * capacity * width).order(ByteOrder.nativeOrder()).asFloatBuffer()
    }
    var past = 0
        private set

    /** Appends [tokens] to the cache and returns the logits after the last one. */
    fun forward(tokens: LongArray): FloatArray {
        require(tokens.isNotEmpty() && past + tokens.size <= capacity) { "the cache holds $past of $capacity tokens" }
        val inputs = HashMap<String, OnnxTensor>()
        try {
            inputs["input_ids"] = OnnxTensor.createTensor(env, arrayOf(tokens))
            inputs["n_logits"] = OnnxTensor.createTensor(env, longArrayOf(1))
            latents.forEachIndexed { layer, buffer ->  // the first rows of a direct buffer: no copy
                val filled = buffer.duplicate().apply { position(0); limit(past * width) }.slice()
                val shape = longArrayOf(past.toLong(), width.toLong())
                inputs["past_latent.$layer"] = OnnxTensor.createTensor(env, filled, shape)
            }
            session.run(inputs).use { outputs ->
                latents.forEachIndexed { layer, buffer ->  // copies the new tokens' latents only
                    val new = (outputs.get("new_latent.$layer").get() as OnnxTensor).floatBuffer
                    buffer.duplicate().apply { position(past * width) }.put(new)
                }
                past += tokens.size
                val logits = (outputs.get("logits").get() as OnnxTensor).floatBuffer
                return FloatArray(logits.remaining()).also { logits.get(it) }
            }
        } finally {
            inputs.values.forEach(OnnxTensor::close)
        }
    }

    /** Drops every token from position [length] on. */
    fun truncate(length: Int) { past = minOf(past, length) }

    override fun close() = session.close()
}
