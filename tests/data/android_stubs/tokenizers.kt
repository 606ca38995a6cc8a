// The part of DJL's binding of Hugging Face's tokenizers that examples/android uses, to compile against.

package ai.djl.huggingface.tokenizers

import java.nio.file.Path

class Encoding(val ids: LongArray)

class HuggingFaceTokenizer {
    fun encode(text: String, addSpecialTokens: Boolean, withOverflowingTokens: Boolean): Encoding = TODO()

    fun decode(ids: LongArray, skipSpecialTokens: Boolean): String = TODO()

    companion object {
        @JvmStatic
        fun newInstance(tokenizerPath: Path): HuggingFaceTokenizer = TODO()
    }
}
