package dev.sprat.student

/** Text to token ids and back: tokenizer.json, read by a library. */
interface TextTokenizer {
    fun encode(text: String): LongArray
    fun decode(ids: LongArray): String
}

/** Answers of a [student]: the cache is kept between turns, text is streamed, and [cancel] works from any thread. */
class Chat(private val student: Student, private val tokenizer: TextTokenizer, private val ends: Set<Long>) {
    private val cached = ArrayList<Long>()

    @Volatile
    private var isCancelled = false

    /** Ends the answer that is being generated after the pass that runs. */
    fun cancel() { isCancelled = true }

    /** Continues [prompt] greedily; [onText] gets the whole text so far, on the calling thread. */
    fun answer(prompt: String, maxTokens: Int = 512, onText: (String) -> Unit): String {
        isCancelled = false
        val ids = tokenizer.encode(prompt)
        require(ids.size < student.capacity) { "the prompt has ${ids.size} tokens, the cache ${student.capacity}" }
        var logits = prefill(ids)
        val answer = ArrayList<Long>()
        var text = ""
        while (!isCancelled && answer.size < maxTokens && student.past < student.capacity) {
            val next = logits.indices.reduce { best, id -> if (logits[id] > logits[best]) id else best }.toLong()
            if (next in ends) break
            answer.add(next)
            val decoded = tokenizer.decode(answer.toLongArray())
            if (!decoded.endsWith('\uFFFD')) {  // half a character waits for its rest
                text = decoded
                onText(text)
            }
            logits = forward(longArrayOf(next))
        }
        return text
    }

    /** Computes what is not in the cache yet, in chunks: memory grows with the chunk, not with the prompt. */
    private fun prefill(ids: LongArray): FloatArray {
        val kept = cached.zip(ids.dropLast(1)).takeWhile { (old, new) -> old == new }.size
        student.truncate(kept)
        cached.subList(kept, cached.size).clear()
        var logits = FloatArray(0)
        for (chunk in ids.drop(kept).chunked(PREFILL)) {
            if (isCancelled) break
            logits = forward(chunk.toLongArray())
        }
        return logits
    }

    private fun forward(tokens: LongArray): FloatArray {
        val logits = student.forward(tokens)
        tokens.forEach { cached.add(it) }
        return logits
    }

    private companion object {
        const val PREFILL = 128
    }
}
