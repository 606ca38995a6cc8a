package dev.sprat.student

import ai.djl.huggingface.tokenizers.HuggingFaceTokenizer
import java.io.File
import org.json.JSONArray
import org.json.JSONObject

/** The folder that `sprat export --format onnx` wrote, copied to the phone. */
class ModelFolder(val path: File) {
    /** The ids that end an answer, from generation_config.json. */
    val ends: Set<Long> by lazy {
        val ids = JSONObject(path.resolve("generation_config.json").readText()).get("eos_token_id")
        if (ids is JSONArray) List(ids.length()) { ids.getLong(it) }.toSet() else setOf((ids as Number).toLong())
    }

    /** tokenizer.json, read by Hugging Face's library. */
    fun tokenizer(): TextTokenizer {
        val tokenizer = HuggingFaceTokenizer.newInstance(path.toPath())
        return object : TextTokenizer {
            override fun encode(text: String): LongArray = tokenizer.encode(text, false, false).ids
            override fun decode(ids: LongArray): String = tokenizer.decode(ids, false)
        }
    }
}

/** The prompt format of DeepSeek's R1 distills and of the packaged student; others: see the Modelfile of a bundle. */
fun prompt(turns: List<Pair<String, String>>): String =
    turns.joinToString("", prefix = BOS, postfix = ASSISTANT + THINK) { (role, text) ->
        if (role == "user") USER + text else ASSISTANT + text.substringAfterLast("</think>").trim() + END
    }

private const val BOS = "<\uFF5Cbegin\u2581of\u2581sentence\uFF5C>"
private const val USER = "<\uFF5CUser\uFF5C>"
private const val ASSISTANT = "<\uFF5CAssistant\uFF5C>"
private const val THINK = "<think>\n"
private const val END = "<\uFF5Cend\u2581of\u2581sentence\uFF5C>"
